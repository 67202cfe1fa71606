"""int8 for any encoder: the linear maps and word embeddings of its fp32 graph, replaced.

The arithmetic is that of `int8_graph`, so that int8 means one thing whatever the architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.int8 import quantise_rows
from export.nodes import FLOAT, Nodes, Quantised, TokenInt8
from service.scorers.onnx import INPUTS


def write_int8(fp32: Path, target: Path) -> None:
    """Write a graph's int8 twin, its weights inside.

    Args:
        fp32: The ONNX file of an encoder.
        target: The ONNX file to write.
    """
    import onnx

    model = onnx.load(fp32)
    graph = model.graph
    rewriter = _Rewriter({tensor.name: tensor for tensor in graph.initializer})
    for node in graph.node:
        rewriter.take(node)
    unused = rewriter.replaced - {name for node in rewriter.to.nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(rewriter.to.nodes)
    graph.initializer.extend([*kept, *rewriter.to.constants])
    onnx.save(model, target)


class _Rewriter:
    """Nodes of the int8 graph; `replaced` are the float32 constants that they may do without."""

    def __init__(self, initializers: dict[str, Any]) -> None:
        self.to = Nodes()
        self._int8 = TokenInt8(self.to)
        self._initializers = initializers
        self._quantised: dict[str, Quantised] = {}
        self.replaced: set[str] = set()

    def take(self, node: Any) -> None:
        """Add a node as it is, or what takes its place."""
        if node.op_type == "MatMul" and self._is_linear(node.input[1]):
            self._linear(node)
        elif node.op_type == "Gather" and self._is_words(node):
            self._words(node)
        else:
            self.to.nodes.append(node)

    def _is_linear(self, weight: str) -> bool:
        """Tell a linear map's matrix; the head's last, of one column, stays float32."""
        tensor = self._initializers.get(weight)
        return tensor is not None and len(tensor.dims) == 2 and tensor.dims[1] > 1

    def _is_words(self, node: Any) -> bool:
        table = self._initializers.get(node.input[0])
        return table is not None and len(table.dims) == 2 and node.input[1] == INPUTS[0]

    def _linear(self, node: Any) -> None:
        x, weight = node.input
        if x not in self._quantised:
            self._quantised[x] = self._int8.quantised(x)
        (output,) = node.output
        if weight not in self.replaced:
            self.replaced.add(weight)
            rows, scales = quantise_rows(self._floats(weight).T)  # [N, K], [N]
            self.to.constant(f"{weight}.int8", rows.T)
            self.to.constant(f"{weight}.scale", scales)
            self.to.constant(f"{weight}.sums", rows.sum(axis=1, dtype=np.float32) * scales)
        self._int8.product(
            self._quantised[x],
            output,
            weight=f"{weight}.int8",
            scale=f"{weight}.scale",
            sums=f"{weight}.sums",
            output=output,
        )

    def _words(self, node: Any) -> None:
        table, ids = node.input
        (output,) = node.output
        self.replaced.add(table)
        rows, scales = quantise_rows(self._floats(table))  # [V, H], [V]
        found = self.to.node(
            "Gather", [self.to.constant(f"{table}.int8", rows), ids], f"{output}.ints"
        )
        found = self.to.node("Cast", [found], f"{output}.floats", to=FLOAT)
        scale = self.to.constant(f"{table}.scale", scales[:, None])
        scale = self.to.node("Gather", [scale, ids], f"{output}.scale")
        self.to.node("Mul", [found, scale], output)

    def _floats(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        return np.array(numpy_helper.to_array(self._initializers[name]), dtype=np.float32)
