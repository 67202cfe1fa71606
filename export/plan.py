"""What a checkpoint is to become: its bundle's manifest and encoder, before any model is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from export.architecture import Architecture, read_architecture
from export.decoder import read_decoder, refuse_adapter
from export.errors import ExportError
from export.onnx import DATA
from export.tokenizer import load_tokenizer, require_spliced
from service.contract.bundle import TOKENIZER
from service.contract.checkpoint import CARD, Card, read_card
from service.contract.encoder import Encoder, Ends
from service.contract.errors import first_error
from service.contract.frame import Frame
from service.contract.manifest import EngineEntry, Manifest, Precision, Source
from service.contract.template import DECODER_TEMPLATE, PAIR_TEMPLATE, TEMPLATE, require_known
from service.scorers.onnx import OUTPUT, UNSEGMENTED_INPUTS

FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
INT8_WEIGHTS = "model.int8.safetensors"

FP32_TOLERANCE = 1e-3
"""Other CPUs sum in another order: ten times the parity gate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkpoint that can be exported, as far as its folder tells.

    Attributes:
        checkpoint: Its folder.
        architecture: Its architecture; None for a decoder.
        tokenizer: The tokenizer's file.
        draft: The manifest, without what only the models can tell.
        encoder: The encoder.
        pad: Id that shorter rows of a call are padded with.
    """

    checkpoint: Path
    architecture: Architecture | None
    tokenizer: Path
    draft: Manifest
    encoder: Encoder
    pad: int


def make_plan(
    checkpoint: Path,
    scratch: Path,
    *,
    name: str,
    precisions: Sequence[Precision] = (),
    max_length: int | None = None,
    source: Source | None = None,
) -> Plan:
    """Return the plan for a checkpoint, or refuse it.

    Args:
        checkpoint: A Hugging Face folder.
        scratch: Where the tokenizer's file may be written.
        name: The bundle's name.
        precisions: Models to put in; default: fp32, and int8 unless it is a decoder.
        max_length: Longest pair in tokens; default: the card's, or what the model can, up to 256.
        source: Where the model comes from, if somebody else made it.

    Raises:
        ExportError: It cannot be exported.
    """
    refuse_adapter(checkpoint)
    card = _card(checkpoint)
    if card.template == DECODER_TEMPLATE:
        pairs = _decoder_pairs(checkpoint)
        wanted = _decoder_precisions(checkpoint, precisions)
    else:
        pairs = _encoder_pairs(checkpoint, scratch, card.template)
        wanted = precisions or ("fp32", "int8")
    length, query_length = _lengths(checkpoint, card, pairs, max_length)
    try:
        draft = Manifest(
            name=name,
            template=pairs.template,
            ends=pairs.ends,
            pad=pairs.pad if pairs.template == PAIR_TEMPLATE else None,
            max_length=length,
            max_query_length=query_length,
            inputs=pairs.inputs,
            output=OUTPUT,
            precisions={
                precision: EngineEntry(
                    file=FILES[precision],
                    weights=_weights(precision, pairs.template),
                    tolerance=FP32_TOLERANCE,
                )
                for precision in wanted
            },
            score=card.score,
            source=source,
            training=card.recipe,
            metrics=card.metrics,
        )
    except ValidationError as error:
        raise ExportError(f"the bundle's {first_error(error)}") from None
    try:
        encoder = draft.encoder(pairs.tokenizer)
    except ValueError as error:
        raise ExportError(str(error)) from None
    return Plan(checkpoint, pairs.architecture, pairs.tokenizer, draft, encoder, pairs.pad)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """How a checkpoint's pairs are made, and how long they may be."""

    template: str
    tokenizer: Path
    inputs: tuple[str, ...]
    pad: int
    positions: int | None
    architecture: Architecture | None = None
    ends: Ends | None = None
    usual_length: int | None = None


def _encoder_pairs(checkpoint: Path, scratch: Path, template: str) -> _Pairs:
    try:
        require_known(template)
    except ValueError as error:
        raise ExportError(f"{checkpoint / CARD}: {error}") from None
    architecture = read_architecture(checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    require_spliced(checkpoint, tokenizer, architecture.inputs)
    path = scratch / TOKENIZER
    tokenizer.backend_tokenizer.save(str(path))
    if architecture.is_native:
        try:
            Frame.of_bert(tokenizer.backend_tokenizer)
        except ValueError:  # a BERT with the tokenizer of another family
            architecture = replace(architecture, is_native=False)
    return _Pairs(
        TEMPLATE if architecture.is_native else PAIR_TEMPLATE,
        path,
        architecture.inputs,
        architecture.pad,
        architecture.positions,
        architecture,
        usual_length=tokenizer.model_max_length,
    )


def _decoder_pairs(checkpoint: Path) -> _Pairs:
    tokenizer = checkpoint / TOKENIZER
    if not tokenizer.is_file():
        raise ExportError(f"{checkpoint} is no checkpoint: it has no {TOKENIZER}")
    ends, positions = read_decoder(checkpoint)
    return _Pairs(DECODER_TEMPLATE, tokenizer, UNSEGMENTED_INPUTS, ends.pad, positions, ends=ends)


def _decoder_precisions(checkpoint: Path, wanted: Sequence[Precision]) -> Sequence[Precision]:
    if "int8" in wanted:
        raise ExportError(f"{checkpoint}: a decoder is exported in fp32; int8 is for encoders")
    return ("fp32",)


def _lengths(
    checkpoint: Path, card: Card, pairs: _Pairs, max_length: int | None
) -> tuple[int, int]:
    """Return the tokens of the longest pair and of the longest query."""
    if max_length is None and (checkpoint / CARD).exists():
        length, query_length = card.max_length, card.max_query_length
    else:
        limits = (card.max_length, pairs.positions, pairs.usual_length)
        length = min(limit for limit in limits if limit is not None)
        length = length if max_length is None else max_length
        query_length = min(card.max_query_length, length // 2)
    if pairs.positions is not None and length > pairs.positions:
        raise ExportError(
            f"{checkpoint}: max_length {length} is over the model's {pairs.positions} positions"
        )
    return length, query_length


def _weights(precision: Precision, template: str) -> str | None:
    """Return the file of a model's weights, None where they are in its graph."""
    if precision == "int8":
        return INT8_WEIGHTS if template == TEMPLATE else None
    return None if template == TEMPLATE else DATA


def _card(checkpoint: Path) -> Card:
    try:
        return read_card(checkpoint)
    except ValueError as error:
        raise ExportError(str(error)) from None
