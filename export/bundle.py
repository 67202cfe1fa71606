"""Checkpoint to bundle: export, quantise, hold against the gates, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from export.errors import ExportError
from export.onnx import export_fp32, read_config
from export.parity import GATES, Gates, Parity, compare, encode_examples, torch_scores
from export.quantize import quantize_int8
from service.contract.bundle import (
    TOKENIZER,
    Bundle,
    BundleError,
    EngineEntry,
    GoldenQuery,
    Manifest,
    Precision,
    write_bundle,
)
from service.contract.checkpoint import VALIDATION, Card, read_card
from service.contract.encoding import PairEncoder, TokenPair
from service.contract.errors import first_error
from service.contract.examples import read_examples
from service.contract.folder import restore_folder
from service.contract.types import RankingExample
from service.scorers.onnx import INPUTS, OUTPUT, OnnxScorer

FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}

FP32_TOLERANCE = 1e-3
"""Other CPUs sum in another order: ten times the parity gate."""

INT8_TOLERANCE_FLOOR = 0.25
"""int8 kernels differ between CPUs; a wrong model is off by more than this."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A written bundle and how its models stand beside the checkpoint."""

    bundle: Bundle
    parity: dict[Precision, Parity]


def export_bundle(
    checkpoint: Path,
    target: Path,
    *,
    name: str,
    precisions: Sequence[Precision] = ("fp32", "int8"),
    examples: Path | None = None,
    gates: Mapping[Precision, Gates] = GATES,
    overwrite: bool = False,
) -> Exported:
    """Export a checkpoint into a bundle, or refuse.

    Args:
        checkpoint: A Hugging Face BERT folder with one label, with or without `disranker.json`.
        target: The bundle's directory.
        name: The bundle's name.
        precisions: Models to put in, at least one.
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
    if not (checkpoint / TOKENIZER).is_file():
        raise ExportError(f"{checkpoint} is no checkpoint: it has no {TOKENIZER}")
    card = _card(checkpoint)
    draft = _draft(name, card, precisions)
    encoder = _encoder(checkpoint, card)
    golden = _golden(checkpoint, encoder)
    held_out = _examples(checkpoint, examples)
    pairs = encode_examples(encoder, held_out)
    reference = torch_scores(checkpoint, pairs)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        calibration = [pair for row in pairs for pair in row]
        models = _models(checkpoint, Path(scratch), precisions, calibration)
        parity: dict[Precision, Parity] = {}
        entries: dict[Precision, EngineEntry] = {}
        for precision, path in models.items():
            scorer = OnnxScorer(path)
            parity[precision] = compare(held_out, pairs, reference, scorer.score, name=precision)
            entries[precision] = EngineEntry(
                file=path.name, tolerance=_tolerance(precision, scorer, encoder, golden)
            )
        _check(checkpoint, parity, gates)
        figures = {precision: found.as_dict() for precision, found in parity.items()}
        manifest = draft.model_copy(
            update={"precisions": entries, "metrics": {**card.metrics, "parity": figures}}
        )
        try:
            bundle = write_bundle(
                target,
                manifest,
                {
                    TOKENIZER: checkpoint / TOKENIZER,
                    **{path.name: path for path in models.values()},
                },
                golden,
                overwrite=overwrite,
            )
        except BundleError as error:
            raise ExportError(str(error)) from error
    return Exported(bundle, parity)


def _draft(name: str, card: Card, precisions: Sequence[Precision]) -> Manifest:
    """Return the manifest without what only the models can tell, refused before they are made."""
    try:
        return Manifest(
            name=name,
            template=card.template,
            max_length=card.max_length,
            max_query_length=card.max_query_length,
            inputs=INPUTS,
            output=OUTPUT,
            precisions={
                precision: EngineEntry(file=FILES[precision], tolerance=FP32_TOLERANCE)
                for precision in precisions
            },
            score=card.score,
            training=card.recipe,
            metrics=card.metrics,
        )
    except ValidationError as error:
        raise ExportError(f"the bundle's {first_error(error)}") from None


def _encoder(checkpoint: Path, card: Card) -> PairEncoder:
    positions = read_config(checkpoint)["max_position_embeddings"]
    if card.max_length > positions:
        raise ExportError(
            f"{checkpoint}: max_length {card.max_length} is over the model's {positions} positions"
        )
    try:
        return PairEncoder.from_file(
            checkpoint / TOKENIZER,
            max_length=card.max_length,
            max_query_length=card.max_query_length,
        )
    except ValueError as error:
        raise ExportError(str(error)) from None


def _models(
    checkpoint: Path,
    scratch: Path,
    precisions: Sequence[Precision],
    calibration: Sequence[TokenPair],
) -> dict[Precision, Path]:
    """Write the wanted models into scratch; int8 is made from fp32."""
    paths = {precision: scratch / file for precision, file in FILES.items()}
    export_fp32(checkpoint, paths["fp32"])
    if "int8" in precisions:
        quantize_int8(paths["fp32"], paths["int8"], calibration)
    return {precision: paths[precision] for precision in precisions}


def _golden(checkpoint: Path, encoder: PairEncoder) -> list[GoldenQuery]:
    """Return our own golden queries with the checkpoint's scores."""
    queries = _own_examples()
    scores = torch_scores(checkpoint, encode_examples(encoder, queries))
    return [
        GoldenQuery(example.query, example.candidates, tuple(float(score) for score in found))
        for example, found in zip(queries, scores, strict=True)
    ]


def _tolerance(
    precision: Precision, scorer: OnnxScorer, encoder: PairEncoder, golden: Sequence[GoldenQuery]
) -> float:
    """Return the bound on golden deviations: fixed for fp32, three times the seen one for int8."""
    if precision == "fp32":
        return FP32_TOLERANCE
    seen = max(
        abs(found - expected)
        for query in golden
        for found, expected in zip(
            scorer.score(encoder.encode(query.query, query.candidates)), query.scores, strict=True
        )
    )
    return round(max(INT8_TOLERANCE_FLOOR, 3 * float(seen)), 3)


def _check(
    checkpoint: Path, parity: Mapping[Precision, Parity], gates: Mapping[Precision, Gates]
) -> None:
    failed = [
        (precision, failure)
        for precision, found in parity.items()
        for failure in found.failures(gates[precision])
    ]
    if not failed:
        return
    told = "; ".join(f"{precision}: {failure}" for precision, failure in failed)
    if all(precision == "int8" for precision, _ in failed):
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
