"""A TensorRT plan beside a bundle, and the GPU and TensorRT that it was made for."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from export.errors import ExportError
from service.contract.errors import first_error
from service.contract.manifest import Manifest

PLAN = "model.plan"
CARD = "plan.json"

PlanPrecision = Literal["fp32", "fp16", "int8", "fp8"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's name, and its compute capability such as "9.0"."""

    name: str
    capability: str


class PlanCard(BaseModel):
    """What lies beside a plan: what it is of, and where it runs, which is nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    bundle_version: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: PlanPrecision
    widths: tuple[int, ...] = Field(min_length=1, description="one profile each, in this order")
    max_batch: int = Field(ge=1)
    gpu: str
    compute_capability: str = Field(pattern=r"^\d+\.\d+$")
    tensorrt: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=1)
    parity: dict[str, JsonValue] = Field(default_factory=dict)

    def refuse_elsewhere(self, gpus: list[Gpu], tensorrt: str | None = None) -> None:
        """Pass where the plan runs on all of these GPUs.

        Args:
            gpus: Those of a host, none where they cannot be seen.
            tensorrt: Version of the host's TensorRT; None where it cannot be seen.

        Raises:
            ExportError: It was made for another GPU or TensorRT.
        """
        made_for = Gpu(self.gpu, self.compute_capability)
        for gpu in gpus:
            if gpu != made_for:
                raise ExportError(
                    f"the plan was made for {self.gpu} ({self.compute_capability}), this host has "
                    f"{gpu.name} ({gpu.capability}): make one here with export tensorrt"
                )
        if tensorrt is not None and tensorrt != self.tensorrt:
            raise ExportError(
                f"the plan was made by TensorRT {self.tensorrt}, this host has {tensorrt}: make "
                f"one here with export tensorrt"
            )


def open_plan(folder: Path, manifest: Manifest) -> PlanCard:
    """Return the card of a bundle's plan, every byte of which was checked.

    Raises:
        ExportError: It is no plan, was changed, or is another bundle's.
    """
    try:
        card = PlanCard.model_validate_json((folder / CARD).read_bytes())
        found = fingerprint(folder / PLAN)
    except ValidationError as error:
        raise ExportError(f"{folder / CARD}: {first_error(error)}") from None
    except OSError as error:
        raise ExportError(f"{folder} is no plan of export tensorrt: {error}") from None
    if card.bundle_version != manifest.version:
        raise ExportError(
            f"{folder} is a plan of bundle {card.bundle_version[:12]}, not of "
            f"{manifest.name} {manifest.version[:12]}"
        )
    if found != card.sha256:
        raise ExportError(f"{folder / PLAN} was changed: its sha256 is {found}")
    return card


def fingerprint(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that NVIDIA's driver tells of, none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if line.strip()]
    return [Gpu(name.strip(), capability.strip()) for name, _, capability in rows]
