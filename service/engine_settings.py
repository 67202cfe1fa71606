"""The settings of what runs the model, and of how much it is handed at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from service.contract.triton import TritonPrecision
from service.engines.engine import EngineKind

CPU_LAUNCH_TOKENS = 512


class EngineSettings(BaseModel):
    """Which model of a bundle runs, on what and in what portions; a part of `Settings`."""

    precision: TritonPrecision | None = Field(
        default=None,
        description="Model of the bundle to serve: int8 is the fast one, fp32 the reference, fp16 "
        "what GPUs run, fp8 what they may in Triton. By default int8 where the bundle offers it.",
    )
    engine: EngineKind | None = Field(
        default=None,
        description="What runs the model: native, our int8 kernel for BERTs on x86-64 from "
        "AVX2 on; onnx, ONNX Runtime; or triton, a Triton server that has the bundle's model. By "
        "default native where it can, else onnx, which the log and /metrics tell.",
    )
    triton_url: str = Field(
        default="localhost:8001",
        pattern=r"^[^\s/@]+:\d+$",
        description="Host and port of Triton's gRPC, for the engine triton. Requests are spread "
        "over all addresses that the host's name has. Nothing is encrypted: keep it in a network "
        "of its own.",
    )
    triton_model: str | None = Field(
        default=None,
        description="What Triton calls the model; by default what `python -m export triton` "
        "called this bundle's.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where onnx runs the model: cuda is the first NVIDIA GPU (extra [gpu]).",
    )
    cuda_model: Path | None = Field(
        default=None,
        description="For the device cuda: fp16 model of the bundle's checkpoint, as `python -m "
        "export onnx CHECKPOINT FILE --fp16` writes it; by default the bundle's own fp32.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Cores of the engine, each scoring a pair of its own; 0 takes all that this "
        "process may use. In a container, set it to the CPU limit, which the process cannot see.",
    )
    max_batch: int = Field(
        default=48, ge=1, le=1024, description="Most pairs the engine is handed at a time."
    )
    launch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens the engine is handed at a time, by default 512, on a GPU all of "
        "max_batch. An urgent request waits for one launch: smaller is fairer, larger cheaper.",
    )

    def launch_of(self, max_length: int) -> int:
        """Return the most tokens of a launch, for pairs of at most so many."""
        usual = self.max_batch * max_length if self.device == "cuda" else CPU_LAUNCH_TOKENS
        return self.launch_tokens or usual
