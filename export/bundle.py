"""Checkpoint to bundle: export, quantise, hold against the gates, write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from export.decoder import DATA, PaddedScorer, export_decoder, read_decoder, refuse_adapter
from export.errors import ExportError
from export.int8 import quantize_int8
from export.onnx import export_fp32, read_config
from export.parity import GATES, Gates, Parity, compare, encode_examples, torch_scores
from service.contract.bundle import TOKENIZER, Bundle, BundleError, GoldenQuery, write_bundle
from service.contract.checkpoint import VALIDATION, Card, read_card
from service.contract.encoder import Encoder, Ends
from service.contract.errors import first_error
from service.contract.examples import read_examples
from service.contract.folder import restore_folder
from service.contract.manifest import EngineEntry, Manifest, Precision
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import RankingExample
from service.scorers import native
from service.scorers.onnx import DECODER_INPUTS, INPUTS, OUTPUT, OnnxScorer
from service.scorers.scorer import Scorer

FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
INT8_WEIGHTS = "model.int8.safetensors"

FP32_TOLERANCE = 1e-3
"""Other CPUs sum in another order: ten times the parity gate."""

INT8_TOLERANCE_FLOOR = 0.35
"""Without VNNI, ONNX Runtime's int8 sums saturate: the shipped model is 0.214 off, not 0.064.

A wrong model is off by more."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle and how its models stand beside the checkpoint.

    Attributes:
        bundle: The bundle, opened.
        parity: By precision, as ONNX Runtime runs it; "int8 native" as the native engine does,
            "fp32 padded" as ONNX Runtime runs a decoder on several pairs a call.
    """

    bundle: Bundle
    parity: dict[str, Parity]


def export_bundle(
    checkpoint: Path,
    target: Path,
    *,
    name: str,
    precisions: Sequence[Precision] = (),
    examples: Path | None = None,
    gates: Mapping[Precision, Gates] = GATES,
    overwrite: bool = False,
) -> Exported:
    """Export a checkpoint into a bundle, or refuse.

    Args:
        checkpoint: A Hugging Face folder with one label: of a BERT, with or without
            `disranker.json`, or of a decoder, with one.
        target: The bundle's directory.
        name: The bundle's name.
        precisions: Models to put in; default: fp32, and int8 unless it is a decoder.
        examples: Pairs for the parity report, JSON Lines; default: the checkpoint's own
            `validation.jsonl`, else the golden pairs.
        gates: What each precision has to keep of the checkpoint's ranking.
        overwrite: Replace an existing target.

    Raises:
        ExportError: The checkpoint cannot be exported or a precision fails its gates.
    """
    restore_folder(target)
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; --overwrite replaces it")
    refuse_adapter(checkpoint)
    if not (checkpoint / TOKENIZER).is_file():
        raise ExportError(f"{checkpoint} is no checkpoint: it has no {TOKENIZER}")
    card = _card(checkpoint)
    precisions = _precisions(checkpoint, card, precisions)
    ends = _ends(checkpoint, card)
    draft = _draft(name, card, precisions, ends)
    encoder = _encoder(checkpoint, draft)
    golden = _golden(checkpoint, encoder, draft.inputs)
    held_out = _examples(checkpoint, examples)
    pairs = encode_examples(encoder, held_out)
    reference = torch_scores(checkpoint, pairs, draft.inputs)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        files = _models(checkpoint, Path(scratch), draft)
        parity: dict[str, Parity] = {}
        entries: dict[Precision, EngineEntry] = {}
        failed: list[str] = []
        for precision in precisions:
            scorers = _scorers(Path(scratch), precision, ends)
            for engine, scorer in scorers.items():
                found = compare(held_out, pairs, reference, scorer.score, name=engine)
                failed += [f"{engine}: {failure}" for failure in found.failures(gates[precision])]
                parity[engine] = found
            entries[precision] = draft.precisions[precision].model_copy(
                update={"tolerance": _tolerance(precision, scorers.values(), encoder, golden)}
            )
        _check(checkpoint, failed)
        figures = {engine: found.as_dict() for engine, found in parity.items()}
        manifest = draft.model_copy(
            update={"precisions": entries, "metrics": {**card.metrics, "parity": figures}}
        )
        try:
            bundle = write_bundle(
                target,
                manifest,
                {TOKENIZER: checkpoint / TOKENIZER, **{path.name: path for path in files}},
                golden,
                overwrite=overwrite,
            )
        except BundleError as error:
            raise ExportError(str(error)) from error
    return Exported(bundle, parity)


def _precisions(checkpoint: Path, card: Card, wanted: Sequence[Precision]) -> Sequence[Precision]:
    if card.template != DECODER_TEMPLATE:
        return wanted or ("fp32", "int8")
    if "int8" in wanted:
        raise ExportError(f"{checkpoint}: a decoder is exported in fp32; int8 is for BERTs")
    return ("fp32",)


def _ends(checkpoint: Path, card: Card) -> Ends | None:
    """Return the ends of a decoder's pairs, None for a BERT; refuse what is neither."""
    ends: Ends | None
    positions: int | None
    if card.template == DECODER_TEMPLATE:
        ends, positions = read_decoder(checkpoint)
    else:
        ends, positions = None, read_config(checkpoint)["max_position_embeddings"]
    if positions is not None and card.max_length > positions:
        raise ExportError(
            f"{checkpoint}: max_length {card.max_length} is over the model's {positions} positions"
        )
    return ends


def _draft(name: str, card: Card, precisions: Sequence[Precision], ends: Ends | None) -> Manifest:
    """Return the manifest without what only the models can tell, refused before they are made."""
    try:
        return Manifest(
            name=name,
            template=card.template,
            ends=ends,
            max_length=card.max_length,
            max_query_length=card.max_query_length,
            inputs=INPUTS if ends is None else DECODER_INPUTS,
            output=OUTPUT,
            precisions={
                precision: EngineEntry(
                    file=FILES[precision],
                    weights=_weights(precision, ends),
                    tolerance=FP32_TOLERANCE,
                )
                for precision in precisions
            },
            score=card.score,
            training=card.recipe,
            metrics=card.metrics,
        )
    except ValidationError as error:
        raise ExportError(f"the bundle's {first_error(error)}") from None


def _weights(precision: Precision, ends: Ends | None) -> str | None:
    """Return the file of a model's weights, None where they are in its graph."""
    if precision == "int8":
        return INT8_WEIGHTS
    return None if ends is None else DATA


def _encoder(checkpoint: Path, draft: Manifest) -> Encoder:
    try:
        return draft.encoder(checkpoint / TOKENIZER)
    except ValueError as error:
        raise ExportError(str(error)) from None


def _models(checkpoint: Path, scratch: Path, draft: Manifest) -> list[Path]:
    """Write the wanted models into scratch and return their files."""
    if draft.ends is not None:
        export_decoder(checkpoint, scratch / FILES["fp32"])
    elif "fp32" in draft.precisions:
        export_fp32(checkpoint, scratch / FILES["fp32"])
    if "int8" in draft.precisions:
        graph, weights = scratch / FILES["int8"], scratch / INT8_WEIGHTS
        quantize_int8(checkpoint, graph, weights, positions=draft.max_length)
    return [scratch / name for entry in draft.precisions.values() for name in entry.files]


def _scorers(scratch: Path, precision: Precision, ends: Ends | None) -> dict[str, Scorer]:
    """Return what runs a precision on this host, by its name in the parity report."""
    scorers: dict[str, Scorer] = {precision: OnnxScorer(scratch / FILES[precision])}
    if precision == "int8" and native.why_not() is None:
        scorers["int8 native"] = native.NativeScorer(scratch / INT8_WEIGHTS)
    if ends is not None:
        scorers[f"{precision} padded"] = PaddedScorer(scratch / FILES[precision], pad=ends.pad)
    return scorers


def _golden(checkpoint: Path, encoder: Encoder, inputs: Sequence[str]) -> list[GoldenQuery]:
    """Return our own golden queries with the checkpoint's scores."""
    queries = _own_examples()
    scores = torch_scores(checkpoint, encode_examples(encoder, queries), inputs)
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
    """Return the bound on golden deviations: fixed for fp32, three times the seen one for int8."""
    if precision == "fp32":
        return FP32_TOLERANCE
    seen = max(
        np.abs(scorer.score(encoder.encode(query.query, query.candidates)) - query.scores).max()
        for scorer in scorers
        for query in golden
    )
    return round(max(INT8_TOLERANCE_FLOOR, 3 * float(seen)), 3)


def _check(checkpoint: Path, failed: Sequence[str]) -> None:
    if not failed:
        return
    told = "; ".join(failed)
    if all(failure.startswith("int8") for failure in failed):
        told += "; --precision fp32 exports without int8"
    raise ExportError(f"{checkpoint}: no bundle written, gates failed: {told}")


def _examples(checkpoint: Path, path: Path | None) -> list[RankingExample]:
    source = path or checkpoint / VALIDATION
    if path is None and not source.exists():
        return _own_examples()
    try:
        found = read_examples(source)
    except (OSError, ValueError) as error:
        raise ExportError(f"parity examples: {error}") from None
    if not any(example.candidates for example in found):
        raise ExportError(f"parity examples: {source} has no query with candidates")
    return found


def _own_examples() -> list[RankingExample]:
    with_path = files("export") / "golden.jsonl"
    return read_examples(Path(str(with_path)))


def _card(checkpoint: Path) -> Card:
    try:
        return read_card(checkpoint)
    except ValueError as error:
        raise ExportError(str(error)) from None
