"""What a Triton model repository and its client agree on, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from service.contract.bundle import GoldenQuery
from service.contract.manifest import Manifest

TritonPrecision = Literal["fp32", "fp16", "int8", "fp8"]
"""What Triton runs; for GPUs fp16 is made of a bundle's fp32 model, or a plan of its checkpoint."""

MAX_BATCH = 48
"""Most pairs of a request, and of what Triton makes of several."""

WIDTHS = (32, 64, 128, 192, 256, 384, 512, 1024, 2048, 4096)
"""Widths that pairs are padded to: Triton merges requests of the same width only."""

NORMAL, LOW = 1, 2
"""Priority levels; Triton takes the lower number first."""

BUNDLE_PARAMETER = "bundle_version"
PRECISION_PARAMETER = "precision"

FP16_TOLERANCE = 0.05
"""Of scores up to 10, in proportion above; a toy's random weights are 0.025 off at 12."""

TOLERANCES: dict[TritonPrecision, float] = {
    "fp32": 1e-3,
    "fp16": FP16_TOLERANCE,
    "int8": 0.35,
    "fp8": 0.35,
}
"""Of models that are not in the bundle; of scores up to 10, in proportion above."""


def widths(max_length: int) -> tuple[int, ...]:
    """Return the widths for pairs of at most so many tokens, ascending; the last is max_length."""
    return (*(width for width in WIDTHS if width < max_length), max_length)


def model_name(manifest: Manifest) -> str:
    """Return the Triton model's name; a bundle of other content has another one."""
    return f"{manifest.name}-{manifest.version[:12]}"


def padding(manifest: Manifest) -> int:
    """Return the id that pairs are padded with on the right."""
    if manifest.ends is not None:
        return manifest.ends.pad
    return manifest.pad or 0


def tolerance(
    manifest: Manifest, golden: Sequence[GoldenQuery], precision: TritonPrecision
) -> float:
    """Return the bound on |score - golden score|, in logits."""
    for offered, entry in manifest.precisions.items():
        if offered == precision:
            return entry.tolerance
    largest = max(abs(score) for query in golden for score in query.scores)
    return TOLERANCES[precision] * max(1.0, largest / 10)
