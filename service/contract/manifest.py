"""What a bundle says of itself: its manifest's fields and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.contract.encoder import Encoder, Ends, load_encoder

SCHEMA_VERSION = 2

Precision = Literal["fp32", "int8"]


class _Part(BaseModel):
    # Unknown keys are an error: a manifest from a newer writer must not be half understood.
    # NaN is no JSON: it would be written as null, and the fingerprint would no longer fit.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class FileEntry(_Part):
    """Fingerprint of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class EngineEntry(_Part):
    """One precision on offer.

    `file` is the ONNX graph, `weights` the file that it and the native engine read, where the graph
    does not hold its own; a decoder's never does, since an ONNX file ends at 2 GB. `tolerance`
    bounds |score - golden score| on any CPU, in logits.
    """

    file: str
    weights: str | None = None
    tolerance: float = Field(gt=0)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of this precision."""
        return (self.file,) if self.weights is None else (self.file, self.weights)


class Relevance(_Part):
    """Platt scaling: `relevance = sigmoid(scale * score + offset)`."""

    scale: float = Field(default=1.0, gt=0)
    offset: float = 0.0


class TeacherScale(_Part):
    """How a teacher's raw scores were standardised: `(score - mean) / std`."""

    mean: float
    std: float = Field(gt=0)


class ScoreMeaning(_Part):
    """What a raw score is: a logit on the standardised scale of the teachers it was taught by."""

    teachers: dict[str, TeacherScale] = Field(default_factory=dict)
    relevance: Relevance = Relevance()


class Source(_Part):
    """Where a model comes from that somebody else made.

    `relevance` is then `sigmoid(score)`, a probability where the model was trained for one
    (binary cross-entropy), uncalibrated otherwise; `activation` is what its authors put on a logit.
    """

    name: str = Field(description="on the hub, or of its folder")
    revision: str | None = Field(default=None, description="commit on the hub")
    licence: str | None = Field(default=None, description="as the model card names it")
    activation: str | None = Field(default=None, description="as sentence-transformers names it")


class Manifest(_Part):
    """What a bundle says of itself; `version` is the fingerprint of all the rest."""

    schema_version: Literal[2] = 2
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    template: str
    # Left out where there are none: the bundles of before keep their version.
    ends: Ends | None = Field(default=None, exclude_if=lambda ends: ends is None)
    pad: int | None = Field(
        default=None,
        ge=0,
        exclude_if=lambda pad: pad is None,
        description="id that rows of a call are padded with; none where `ends` or 0 is",
    )
    max_length: int = Field(ge=8, le=8192)
    max_query_length: int = Field(ge=1, le=8192)
    inputs: tuple[str, ...]
    output: str
    precisions: dict[Precision, EngineEntry] = Field(min_length=1)
    score: ScoreMeaning = ScoreMeaning()
    source: Source | None = Field(default=None, exclude_if=lambda source: source is None)
    training: dict[str, JsonValue] = Field(default_factory=dict)
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, FileEntry] = Field(default_factory=dict)

    @property
    def preferred_precision(self) -> Precision:
        """The precision used where none is asked for: int8, the fast one, where it is offered."""
        return "int8" if "int8" in self.precisions else "fp32"

    def encoder(self, tokenizer: Path) -> Encoder:
        """Return the encoder over a `tokenizer.json`.

        Raises:
            ValueError: The tokenizer is none for the template, or the lengths leave no room.
        """
        return load_encoder(
            tokenizer,
            self.template,
            self.ends,
            max_length=self.max_length,
            max_query_length=self.max_query_length,
        )

    def fingerprint(self) -> str:
        """Return the sha256 of the canonical JSON of all fields but `version`."""
        fields = self.model_dump(mode="json", exclude={"version"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
