"""ONNX nodes and constants as they come, and int8 arithmetic made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

FLOAT = 1
"""ONNX's number of float32."""


class Nodes:
    """Part of a graph; a node is named like its one output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: ArrayLike) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name


@dataclass(frozen=True, slots=True)
class Quantised:
    """Names of a quantised tensor's parts: `x = values · scale + low`, a scale a token."""

    values: str
    scale: str
    low: str


class TokenInt8:
    """Linear maps in int8: a token's activations are quantised over their own range.

    No score then depends on the rest of its call (`docs/decisions.md`, 4).
    """

    def __init__(self, to: Nodes) -> None:
        """Write into `to`."""
        self._to = to
        self._steps = to.constant("1/255", np.float32(1 / 255))
        self._least_scale = to.constant("least_scale", np.float32(1e-30))
        self._unit = to.constant("unit", np.float32(1))
        self._unsigned = to.constant("unsigned", np.uint8(0))

    def quantised(self, x: str) -> Quantised:
        """Return x [..., K] in uint8, and each token's scale and lowest value."""
        node = self._to.node
        low = node("ReduceMin", [x], f"{x}.low", axes=[-1], keepdims=1)
        high = node("ReduceMax", [x], f"{x}.high", axes=[-1], keepdims=1)
        width = node("Sub", [high, low], f"{x}.width")
        scale = node("Mul", [width, self._steps], f"{x}.some_scale")
        scale = node("Max", [scale, self._least_scale], f"{x}.scale")
        above = node("Sub", [x, low], f"{x}.above_low")
        steps = node("Div", [above, scale], f"{x}.in_steps")
        values = node("QuantizeLinear", [steps, self._unit, self._unsigned], f"{x}.values")
        return Quantised(values, scale, low)

    def product(
        self, x: Quantised, name: str, *, weight: str, scale: str, sums: str, output: str
    ) -> str:
        """Return the product of x and a matrix.

        Args:
            x: What is multiplied.
            name: What the nodes' names begin with.
            weight: Constant with the matrix, int8 [K, N].
            scale: Constant with its scales, [N].
            sums: Constant with its column sums, scaled, [N].
            output: The product's name.
        """
        node = self._to.node
        dots = node("MatMulInteger", [x.values, weight], f"{name}.ints")
        dots = node("Cast", [dots], f"{name}.floats", to=FLOAT)
        dots = node("Mul", [dots, x.scale], f"{name}.steps")
        dots = node("Mul", [dots, scale], f"{name}.dots")
        rest = node("Mul", [x.low, sums], f"{name}.from_low")
        return node("Add", [dots, rest], output)
