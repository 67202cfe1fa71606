"""Dynamic int8: weights quantised once, activations at run time."""

from __future__ import annotations

import logging
from pathlib import Path


def quantize_int8(source: Path, target: Path) -> None:
    """Write a dynamically quantised copy of a fused fp32 graph.

    Weights are int8 per output channel, the embedding tables too; activations are uint8 with
    one range a call, which is why a pair is scored in a call of its own.

    Args:
        source: A graph written by `export_fp32`; fuse first, quantise second.
        target: The ONNX file to write.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # its advice to pre-process does not hold for a fused graph
    try:
        quantize_dynamic(
            source,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # The fused operators hide their tensors' types from shape inference.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    finally:
        logging.disable(previous)
