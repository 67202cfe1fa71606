"""Checkpoint to bundle: export, quantise, hold against the gates, write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.decoder import export_decoder
from export.errors import ExportError
from export.examples import own_examples, parity_examples
from export.int8 import quantize_int8
from export.int8_linears import write_int8
from export.onnx import export_bert, export_encoder
from export.padded import PaddedScorer
from export.parity import GATES, Gates, Parity, compare, encode_examples, torch_scores, widening
from export.plan import FILES, FP32_TOLERANCE, INT8_WEIGHTS, Plan, make_plan
from service.contract.bundle import TOKENIZER, Bundle, BundleError, GoldenQuery, write_bundle
from service.contract.encoder import Encoder
from service.contract.folder import restore_folder
from service.contract.manifest import EngineEntry, Precision, Source
from service.scorers import native
from service.scorers.onnx import OnnxScorer
from service.scorers.scorer import Scorer

INT8_TOLERANCE_FLOOR = 0.35
"""Without VNNI, ONNX Runtime's int8 sums saturate: the shipped model is 0.214 off, not 0.064.

A wrong model is off by more."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle and how its models stand beside the checkpoint.

    Attributes:
        bundle: The bundle, opened.
        parity: By precision, as ONNX Runtime runs it; "int8 native" as the native engine does,
            "fp32 padded" as ONNX Runtime runs several pairs a call. Those left out are in it too.
        left_out: The failed gates of a precision that nobody asked for and the bundle goes without.
    """

    bundle: Bundle
    parity: dict[str, Parity]
    left_out: dict[Precision, list[str]]


def export_bundle(
    checkpoint: Path,
    target: Path,
    *,
    name: str,
    precisions: Sequence[Precision] = (),
    examples: Path | None = None,
    max_length: int | None = None,
    source: Source | None = None,
    gates: Mapping[Precision, Gates] = GATES,
    overwrite: bool = False,
) -> Exported:
    """Export a checkpoint into a bundle, or refuse.

    Args:
        checkpoint: A Hugging Face folder with one label: of an encoder, with or without
            `disranker.json`, or of a decoder, with one.
        target: The bundle's directory.
        name: The bundle's name.
        precisions: Models to put in; default: fp32, and int8 if it passes its gates and the model
            is no decoder.
        examples: Pairs for the parity report, JSON Lines; default: the checkpoint's own
            `validation.jsonl`, else the golden pairs.
        max_length: Longest pair in tokens; default: the card's, or what the model can, up to 256.
        source: Where the model comes from, if somebody else made it.
        gates: What each precision has to keep of the checkpoint's ranking.
        overwrite: Replace an existing target.

    Raises:
        ExportError: The checkpoint cannot be exported or a precision fails its gates.
    """
    require_free(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        plan = make_plan(
            checkpoint,
            Path(scratch),
            name=name,
            precisions=precisions,
            max_length=max_length,
            source=source,
        )
        golden = _golden(plan)
        held_out = parity_examples(checkpoint, examples)
        pairs = encode_examples(plan.encoder, held_out)
        reference = torch_scores(checkpoint, pairs, plan.draft.inputs)
        _write_models(plan, Path(scratch))
        parity: dict[str, Parity] = {}
        entries: dict[Precision, EngineEntry] = {}
        failed: dict[Precision, list[str]] = {}
        for precision, entry in plan.draft.precisions.items():
            scorers = _scorers(plan, Path(scratch), precision)
            found = {
                engine: compare(held_out, pairs, reference, scorer.score, name=engine)
                for engine, scorer in scorers.items()
            }
            parity |= found
            if failures := _failures(found, gates[precision].for_scores(reference)):
                failed[precision] = failures
                continue
            tolerance = _tolerance(precision, scorers.values(), plan.encoder, golden)
            entries[precision] = entry.model_copy(update={"tolerance": tolerance})
        if set(failed) - ({"int8"} - {*precisions}):
            raise _refusal(checkpoint, failed)
        bundle = _write(plan, Path(scratch), target, entries, parity, golden, overwrite=overwrite)
    return Exported(bundle, parity, failed)


def require_free(target: Path, *, overwrite: bool) -> None:
    """Pass where a bundle may be written, before anything is done for it.

    Raises:
        ExportError: There is something, and it is not to be replaced.
    """
    restore_folder(target)
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; --overwrite replaces it")


def _write_models(plan: Plan, scratch: Path) -> None:
    """Write the models that are planned into scratch."""
    fp32, int8 = (scratch / FILES[precision] for precision in ("fp32", "int8"))
    architecture, wanted = plan.architecture, plan.draft.precisions
    if architecture is None:
        export_decoder(plan.checkpoint, fp32)
    elif architecture.is_native:
        if "fp32" in wanted:
            export_bert(plan.checkpoint, fp32, architecture)
        if "int8" in wanted:
            positions = plan.draft.max_length
            quantize_int8(plan.checkpoint, int8, scratch / INT8_WEIGHTS, positions=positions)
    else:
        export_encoder(plan.checkpoint, fp32, architecture)
        if "int8" in wanted:
            write_int8(fp32, int8)


def _scorers(plan: Plan, scratch: Path, precision: Precision) -> dict[str, Scorer]:
    """Return what runs a precision on this host, by its name in the parity report."""
    model = scratch / FILES[precision]
    scorers: dict[str, Scorer] = {precision: OnnxScorer(model)}
    if plan.draft.precisions[precision].weights == INT8_WEIGHTS and native.why_not() is None:
        scorers["int8 native"] = native.NativeScorer(scratch / INT8_WEIGHTS)
    if precision == "fp32":
        scorers["fp32 padded"] = PaddedScorer(model, pad=plan.pad)
    return scorers


def _failures(found: Mapping[str, Parity], gates: Gates) -> list[str]:
    return [
        f"{engine}: {failure}" for engine, one in found.items() for failure in one.failures(gates)
    ]


def _refusal(checkpoint: Path, failed: Mapping[Precision, list[str]]) -> ExportError:
    told = "; ".join(failure for failures in failed.values() for failure in failures)
    if set(failed) == {"int8"}:
        told += "; --precision fp32 exports without int8"
    return ExportError(f"{checkpoint}: no bundle written, gates failed: {told}")


def _write(
    plan: Plan,
    scratch: Path,
    target: Path,
    entries: Mapping[Precision, EngineEntry],
    parity: Mapping[str, Parity],
    golden: Sequence[GoldenQuery],
    *,
    overwrite: bool,
) -> Bundle:
    """Write the bundle of the models that passed."""
    figures = {
        engine: found.as_dict() for engine, found in parity.items() if engine.split()[0] in entries
    }
    draft = plan.draft
    manifest = draft.model_copy(
        update={"precisions": entries, "metrics": {**draft.metrics, "parity": figures}}
    )
    files = {name: scratch / name for entry in entries.values() for name in entry.files}
    try:
        return write_bundle(
            target, manifest, {TOKENIZER: plan.tokenizer, **files}, golden, overwrite=overwrite
        )
    except BundleError as error:
        raise ExportError(str(error)) from error


def _golden(plan: Plan) -> list[GoldenQuery]:
    """Return our own golden queries with the checkpoint's scores."""
    queries = own_examples()
    pairs = encode_examples(plan.encoder, queries)
    scores = torch_scores(plan.checkpoint, pairs, plan.draft.inputs)
    return [
        GoldenQuery(example.query, example.candidates, tuple(float(score) for score in found))
        for example, found in zip(queries, scores, strict=True)
    ]


def _tolerance(
    precision: Precision,
    scorers: Iterable[Scorer],
    encoder: Encoder,
    golden: Sequence[GoldenQuery],
) -> float:
    """Return the bound on golden deviations: for int8 three times the seen one."""
    if precision == "fp32":
        scores = [np.array(query.scores, dtype=np.float32) for query in golden]
        return FP32_TOLERANCE * widening(scores)
    seen = max(
        np.abs(scorer.score(encoder.encode(query.query, query.candidates)) - query.scores).max()
        for scorer in scorers
        for query in golden
    )
    return round(max(INT8_TOLERANCE_FLOOR, 3 * float(seen)), 3)
