"""Dynamic int8: weights quantised once, activations at run time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.onnx import quiet
from export.smooth import smooth
from service.contract.encoding import TokenPair


def quantize_int8(source: Path, target: Path, calibration: Sequence[TokenPair]) -> None:
    """Write a dynamically quantised copy of a fused fp32 graph.

    Outlier channels are smoothed first. Weights are int8 per output channel, the embedding
    tables too; activations are uint8 with one range a call, which is why a pair is scored in a
    call of its own.

    Args:
        source: A graph written by `export_fp32`; fuse first, quantise second.
        target: The ONNX file to write.
        calibration: Pairs that show which channels are outliers; no grade of theirs is used.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    smoothed = target.with_suffix(".smooth")
    smooth(source, smoothed, calibration)
    try:
        with quiet():  # its advice to pre-process does not hold for a fused graph
            quantize_dynamic(
                smoothed,
                target,
                per_channel=True,
                weight_type=QuantType.QInt8,
                # The fused operators hide their tensors' types from shape inference.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
    finally:
        smoothed.unlink(missing_ok=True)
