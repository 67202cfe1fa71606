"""The int8 model as an ONNX graph, written node by node.

The native kernel's arithmetic from stock operators: a token's activations are quantised over its
own range, so that no score depends on the rest of its call. The last layer is run for `[CLS]`
alone, whose state is all that the head reads. Nothing is named for ONNX Runtime to fuse into
`SkipLayerNormalization`: with it, a layer norm takes a quarter of the time (`docs/experiments.md`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from export.nodes import FLOAT, Nodes, Quantised, TokenInt8
from service.scorers.onnx import INPUTS, OUTPUT
from service.scorers.weights import WORDS, Int8Weights

CONTRIB = "com.microsoft"
INT32 = 6
"""ONNX's number of the type."""


def write_graph(weights: Int8Weights, stored: Path, target: Path) -> None:
    """Write the graph of weights.

    Args:
        weights: The weights.
        stored: Where they are stored; the graph refers to its bytes.
        target: The ONNX file to write, in the same folder.
    """
    import onnx
    from onnx import helper

    graph = _Graph(weights, stored)
    graph.ranker()
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape) for name in INPUTS]
    output = helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", 1])
    model = helper.make_model(
        helper.make_graph(graph.to.nodes, "ranker", inputs, [output], graph.to.constants),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)],
        ir_version=10,
        producer_name="disranker",
    )
    onnx.save(model, target)


class _Graph:
    def __init__(self, weights: Int8Weights, stored: Path) -> None:
        self.to = Nodes()
        self._node, self._constant = self.to.node, self.to.constant
        self._weights = weights
        self._file = stored.name
        self._spans = _spans(stored)
        self._zero = self._constant("zero", np.array([0]))
        self._one = self._constant("one", np.array([1]))
        self._int8 = TokenInt8(self.to)

    def ranker(self) -> None:
        """Write the whole model."""
        self._node("Cast", [INPUTS[1]], "mask", to=INT32)
        x = self._embeddings()
        for number in range(self._weights.layers):
            x = self._layer(x, number, is_last=number == self._weights.layers - 1)
        cls = self._node("Gather", [x, self._constant("first", np.array(0))], "cls", axis=1)
        pooled = self._linear(self._int8.quantised(cls), "bert.pooler.dense")
        pooled = self._node("Tanh", [pooled], "pooled")
        classifier = self._constant("classifier", self._weights["classifier.weight"].T)
        logit = self._node("MatMul", [pooled, classifier], "logit")
        self._node("Add", [logit, self._held("classifier.bias")], OUTPUT)

    def _embeddings(self) -> str:
        ids, _, segments = INPUTS
        words = self._node("Gather", [self._shared(f"{WORDS}.weight"), ids], "word_ints")
        words = self._node("Cast", [words], "word_floats", to=FLOAT)
        scales = self._constant("word_scales", self._weights.words[1][:, None])
        scales = self._node("Gather", [scales, ids], "word_scale")
        words = self._node("Mul", [words, scales], "words")
        shape = self._node("Shape", [ids], "shape")
        length = self._node("Gather", [shape, self._one], "length", axis=0)
        rows = self._shared("bert.embeddings.position_embeddings.weight")
        positions = self._node("Slice", [rows, self._zero, length, self._zero], "positions")
        kinds = self._held("bert.embeddings.token_type_embeddings.weight")
        kinds = self._node("Gather", [kinds, segments], "segments")
        return self._norm([words, positions, kinds], "bert.embeddings.LayerNorm")

    def _layer(self, x: str, number: int, *, is_last: bool) -> str:
        layer = f"bert.encoder.layer.{number}"
        attention = f"{layer}.attention"
        whole = rows = self._int8.quantised(x)
        if is_last:
            x = self._node("Slice", [x, self._zero, self._one, self._one], "last_cls")
            rows = self._int8.quantised(x)
        query = self._linear(rows, f"{attention}.self.query")
        key = self._linear(whole, f"{attention}.self.key")
        value = self._linear(whole, f"{attention}.self.value")
        attended = self._node(
            "MultiHeadAttention",
            [query, key, value, "", "mask"],
            f"{attention}.self",
            domain=CONTRIB,
            num_heads=self._weights.heads,
        )
        attended = self._linear(self._int8.quantised(attended), f"{attention}.output.dense")
        x = self._norm([attended, x], f"{attention}.output.LayerNorm")
        up = self._linear(self._int8.quantised(x), f"{layer}.intermediate.dense")
        up = self._node("Gelu", [up], f"{layer}.intermediate", domain=CONTRIB)
        down = self._linear(self._int8.quantised(up), f"{layer}.output.dense")
        return self._norm([down, x], f"{layer}.output.LayerNorm")

    def _linear(self, quantised: Quantised, name: str) -> str:
        part = self._weights.linear(name)
        sums = part.values.sum(axis=0, dtype=np.float32) * part.scales  # [N]
        product = self._int8.product(
            quantised,
            name,
            weight=self._shared(f"{name}.weight"),
            scale=self._held(f"{name}.weight_scale"),
            sums=self._constant(f"{name}.sums", sums),
            output=f"{name}.product",
        )
        return self._node("Add", [product, self._held(f"{name}.bias")], name)

    def _norm(self, summands: list[str], name: str) -> str:
        total = self._node("Sum", summands, f"{name}.input")
        inputs = [total, self._held(f"{name}.weight"), self._held(f"{name}.bias")]
        epsilon = self._weights.norm_epsilon
        return self._node("LayerNormalization", inputs, name, axis=-1, epsilon=epsilon)

    def _held(self, name: str) -> str:
        """Put a small stored tensor into the graph itself."""
        return self._constant(name, self._weights[name])

    def _shared(self, name: str) -> str:
        """Refer to a tensor's bytes in the weights' file."""
        from onnx import TensorProto, helper

        tensor = self._weights[name]
        start, end = self._spans[name]
        constant = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(tensor.dtype),
            dims=tensor.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, told in (("location", self._file), ("offset", start), ("length", end - start)):
            constant.external_data.add(key=key, value=str(told))
        self.to.constants.append(constant)
        return name


def _spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each tensor's bytes begin and end in a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    return {
        name: (8 + size + entry["data_offsets"][0], 8 + size + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }
