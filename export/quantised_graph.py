"""Somebody else's calibrated graph: is it what was asked for?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.errors import ExportError
from service.contract.manifest import Manifest


def check_quantised(graph: Path, manifest: Manifest, precision: str) -> None:
    """Pass where a graph has the bundle's inputs and output, and Q/DQ nodes of the precision.

    Args:
        graph: The ONNX file.
        manifest: The bundle's.
        precision: int8 or fp8.

    Raises:
        ExportError: It is no such graph.
    """
    import onnx

    try:
        model = onnx.load(graph, load_external_data=False)
    except Exception as error:  # a file can be wrong in any way
        raise ExportError(f"{graph} cannot be read: {error}") from None
    inputs = {node.name for node in model.graph.input}
    if inputs != set(manifest.inputs):
        raise ExportError(f"{graph} takes {sorted(inputs)}, the bundle {[*manifest.inputs]}")
    outputs = [node.name for node in model.graph.output]
    if outputs != [manifest.output]:
        raise ExportError(f"{graph} gives {outputs}, the bundle {manifest.output}")
    _require_types(graph, model.graph.input, onnx.TensorProto.INT64)
    _require_types(graph, model.graph.output, onnx.TensorProto.FLOAT)
    wanted = {
        "int8": {onnx.TensorProto.INT8},
        "fp8": {onnx.TensorProto.FLOAT8E4M3FN},
    }[precision]
    found = _quantised_types(model)
    if found != wanted:
        names = sorted(map(onnx.TensorProto.DataType.Name, found)) or "nothing"
        raise ExportError(f"{graph} is quantised to {names}, not to {precision} alone")


def _require_types(graph: Path, values: Iterable[Any], wanted: int) -> None:
    """Pass where all values have a type: a plan's buffers are handed over as they are."""
    from onnx import TensorProto

    for value in values:
        found = value.type.tensor_type.elem_type
        if found != wanted:
            name, expected = map(TensorProto.DataType.Name, (found, wanted))
            raise ExportError(f"{graph}: {value.name} is {name}, not {expected}")


def _quantised_types(model: Any) -> set[int]:
    """Return what types `QuantizeLinear` nodes make, which their zero points have."""
    nodes = [*model.graph.node]
    zero_points = {
        node.input[2] for node in nodes if node.op_type == "QuantizeLinear" and len(node.input) > 2
    }
    types = {
        tensor.data_type for tensor in model.graph.initializer if tensor.name in zero_points
    } | {
        attribute.t.data_type
        for node in nodes
        if node.op_type == "Constant" and node.output[0] in zero_points
        for attribute in node.attribute
        if attribute.name == "value"
    }
    return {int(found) for found in types}
