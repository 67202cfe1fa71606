"""The weights in an int8 graph as the product's export writes it, as floats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]


class GraphError(Exception):
    """A graph that is not laid out as the export's; the message says where."""


class Int8Graph:
    """A fused, dynamically quantised BERT, read node by node.

    Tensors are found by the nodes that use them, not by name: equal tensors share one.
    """

    def __init__(self, model: Path) -> None:
        import onnx
        from onnx import helper, numpy_helper

        graph = onnx.load(model).graph
        self._values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._nodes = list(graph.node)
        self._producers = {name: node for node in graph.node for name in node.output}
        heads = (a for node in self._of("QAttention") for a in node.attribute)
        self.heads = next(
            (helper.get_attribute_value(a) for a in heads if a.name == "num_heads"), 0
        )

    def state(self) -> dict[str, Tensor]:
        """Return the state dictionary of a `BertForSequenceClassification`.

        Raises:
            GraphError: The graph is laid out otherwise.
        """
        try:
            return self._state()
        except (KeyError, ValueError, IndexError) as error:
            raise GraphError(f"not the layout that the export writes: {error!r}") from None

    def _state(self) -> dict[str, Tensor]:
        (embed,) = self._of("QEmbedLayerNormalization")
        tables = (f"{table}_embeddings.weight" for table in ("word", "position", "token_type"))
        names = (*tables, "LayerNorm.weight", "LayerNorm.bias")
        state = {
            f"bert.embeddings.{name}": self._tensor(source)
            for name, source in zip(names, embed.input[2:7], strict=True)
        }
        products = self._of("MatMulInteger")
        *_, pooler, classifier = products
        parts = zip(
            self._of("QAttention"),
            _by(3, products[:-2]),
            _by(2, self._of("SkipLayerNormalization")),
            self._of("BiasGelu"),
            strict=True,
        )
        for number, (attention, matrices, norms, gelu) in enumerate(parts):
            prefix = f"bert.encoder.layer.{number}"
            state |= self._attention(f"{prefix}.attention.self", attention)
            for name, product in zip(
                ("attention.output", "intermediate", "output"), matrices, strict=True
            ):
                state[f"{prefix}.{name}.dense.weight"] = self._matrix(product)
            state[f"{prefix}.intermediate.dense.bias"] = self._tensor(gelu.input[1])
            for name, norm in zip(("attention.output", "output"), norms, strict=True):
                gain, shift, bias = norm.input[2:5]
                state[f"{prefix}.{name}.LayerNorm.weight"] = self._tensor(gain)
                state[f"{prefix}.{name}.LayerNorm.bias"] = self._tensor(shift)
                state[f"{prefix}.{name}.dense.bias"] = self._tensor(bias)
        sums = [node.input[1] for node in self._of("Add")]
        for name, product, bias in zip(
            ("bert.pooler.dense", "classifier"), (pooler, classifier), sums, strict=True
        ):
            state[f"{name}.weight"] = self._matrix(product)
            state[f"{name}.bias"] = self._tensor(bias)
        return state

    def _attention(self, prefix: str, node: Any) -> dict[str, Tensor]:
        state = {}
        weights = np.split(self._matrix(node), 3)  # [3 H, H]
        biases = np.split(self._tensor(node.input[2]), 3)  # [3 H]
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            state[f"{prefix}.{name}.weight"] = weight
            state[f"{prefix}.{name}.bias"] = bias
        return state

    def _of(self, kind: str) -> list[Any]:
        """Return the nodes of a kind in the order in which they run."""
        return [node for node in self._nodes if node.op_type == kind]

    def _tensor(self, name: str) -> Tensor:
        """Return a tensor, times its scale where it is quantised."""
        if name not in self._values:
            name = self._producers[name].input[0]  # of a DequantizeLinear
        values = self._values[name]
        if values.dtype == np.float32:
            return np.asarray(values, dtype=np.float32)
        stem = name.removesuffix("_quantized")
        zero = self._values[f"{stem}_zero_point"].astype(np.float32)
        steps = values.astype(np.float32) - zero
        return np.asarray(steps * self._values[f"{stem}_scale"], dtype=np.float32)

    def _matrix(self, product: Any) -> Tensor:
        """Return a product's weight, its outlier channels scaled back, [out, in]."""
        weight = self._tensor(product.input[1])  # [in, out]
        quantise = self._producers[product.input[0]]
        scaled = self._producers[quantise.input[0]]
        factor = self._values.get(scaled.input[1]) if scaled.op_type == "Mul" else None
        if factor is not None:
            weight = weight * factor[:, None]
        return np.ascontiguousarray(weight.T)


def _by(size: int, nodes: Sequence[Any]) -> list[Sequence[Any]]:
    """Return consecutive groups of so many nodes."""
    return [nodes[start : start + size] for start in range(0, len(nodes), size)]
