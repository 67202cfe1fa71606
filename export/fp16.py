"""ONNX graphs in half precision, for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.golden import require_golden
from export.quiet import quiet
from service.contract.bundle import Bundle
from service.scorers.onnx import OnnxScorer

MOST_BYTES = 2_000_000_000
"""An ONNX file with its weights inside ends at 2 GiB."""


def half(model: Any) -> Any:
    """Return a graph with weights and activations in fp16; its scores stay fp32.

    Raises:
        ExportError: It is too large for one file.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():  # it warns of each weight that is closer to 0 than fp16 can tell
        found = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=model.ByteSize() > MOST_BYTES
        )
    if found.ByteSize() > MOST_BYTES:
        raise ExportError(f"{found.ByteSize()} bytes in fp16 are too many for a file")
    return found


def write_fp16(bundle: Bundle, target: Path, *, tolerance: float) -> None:
    """Write the bundle's model in half precision.

    Args:
        bundle: The opened bundle, with an fp32 model.
        target: The ONNX file to write.
        tolerance: Bound on |score - golden score|, as this host's CPU runs the graph.

    Raises:
        ExportError: A golden score is off by more, or the model is too large for one file.
    """
    import onnx

    try:
        onnx.save(half(onnx.load(bundle.model_path("fp32"))), target)
    except ExportError as error:
        raise ExportError(f"{bundle.root}: {error}") from None
    require_golden(bundle, OnnxScorer(target), tolerance=tolerance, where="fp16")
