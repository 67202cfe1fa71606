"""What one decider writes and all replicas read: the weight of a canary, in a file."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

WEIGHTS = "weights.json"


class Desired(BaseModel):
    """The weight that is wanted; it counts for the canary of one version alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    generation: int = Field(ge=0, le=2**53, description="Number of the decision, ever larger.")
    version: str = Field(max_length=64, description="Of the canary, as the metrics show it.")
    weight: float = Field(ge=0, le=1, allow_inf_nan=False, description="Its part of the keys.")


def write_atomically(path: Path, text: str) -> None:
    """Put a text in a file's place: whoever reads or kills finds the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
