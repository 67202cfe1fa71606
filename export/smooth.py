"""Outlier channels are scaled down before they are quantised, and their weights up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract.encoding import TokenPair
from service.scorers.onnx import feeds

QUANTISED = ("MatMul", "Attention")
"""Fused operators whose first input meets a weight matrix, the second."""

OUTLIER_PERCENTILE = 97.0
"""Channels above this percentile of the channels' ranges are scaled down to it."""

CALIBRATION_PAIRS = 150


def smooth(source: Path, target: Path, pairs: Sequence[TokenPair]) -> None:
    """Write a graph with the same scores whose activations have no outlier channels.

    One channel of a BERT's layer norm or GELU may reach twenty times the others' range and then
    takes the whole int8 scale. Each input x of a weight W becomes (x / s) · (s W), s being how far
    a channel stands above the 97th percentile of the channels, so only outliers change.

    Args:
        source: A fused fp32 graph.
        target: The ONNX file to write.
        pairs: Pairs that show the activations' ranges; evenly spaced ones are taken.

    Source:
        Xiao et al. 2023, arXiv:2211.10438, eq. 3, with another choice of s. BERT's norms come
        after the residual, so 1/s cannot be folded into them and stays a node of its own.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in QUANTISED and len(node.input) > 1 and node.input[1] in weights
    ]
    ranges = _channel_ranges(source, {node.input[0] for node in nodes}, pairs)
    for node in nodes:
        scale = outlier_scale(ranges[node.input[0]])  # [K]
        tensor = weights[node.input[1]]
        matrix = numpy_helper.to_array(tensor) * scale[:, None]  # [K, N]
        tensor.CopyFrom(numpy_helper.from_array(matrix, tensor.name))
        factor, scaled = f"{node.name}_smooth", f"{node.name}_smoothed"
        model.graph.initializer.append(numpy_helper.from_array(1 / scale, factor))
        multiply = helper.make_node("Mul", [node.input[0], factor], [scaled], name=factor)
        model.graph.node.insert(list(model.graph.node).index(node), multiply)
        node.input[0] = scaled
    onnx.save(model, target)


def outlier_scale(ranges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far each channel's range stands above the percentile, at least 1, [K]."""
    usual = float(np.percentile(ranges, OUTLIER_PERCENTILE))
    if usual <= 0:
        return np.ones_like(ranges)
    scale: NDArray[np.float32] = np.maximum(np.float32(1), ranges / np.float32(usual))
    return scale


def _channel_ranges(
    model: Path, tensors: set[str], pairs: Sequence[TokenPair]
) -> dict[str, NDArray[np.float32]]:
    """Return the largest absolute value of each channel of the tensors, by tensor name."""
    import onnx
    import onnxruntime as ort
    from onnx import helper

    graph = onnx.load(model)
    names = sorted(tensors)
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges = {name: np.zeros(1, dtype=np.float32) for name in names}
    step = max(1, len(pairs) // CALIBRATION_PAIRS)
    for pair in pairs[::step]:
        values = session.run(names, feeds(pair))  # each [1, L, K]
        for name, value in zip(names, values, strict=True):
            seen = np.abs(value[0]).max(axis=0)  # [K]
            ranges[name] = np.maximum(ranges[name], seen)
    return ranges
