"""The weights of an int8 model: a safetensors file that every engine on a CPU reads.

Names are those of Hugging Face's `BertForSequenceClassification`. A linear map's `weight` is int8
[K, N], the way ONNX multiplies and the other way round than Hugging Face's, with a `weight_scale`
per output channel; the word embeddings are int8 [V, H] with a scale per word; all else is float32.
The graph beside this file refers to these bytes instead of having its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from service.contract.types import Float32s

FORMAT = "disranker-int8-1"
HEADER = "disranker"
"""The entry of the file's metadata that holds its format, heads and epsilon, as JSON."""
WORDS = "bert.embeddings.word_embeddings"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map, `y = x (values · scales) + bias`.

    Attributes:
        values: int8 [K, N].
        scales: float32 [N].
        bias: float32 [N].
    """

    values: NDArray[np.int8]
    scales: Float32s
    bias: Float32s


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """The weights of a 6-layer ranker, or of any BERT with one label.

    Attributes:
        tensors: By name, as stored.
        heads: Attention heads.
        norm_epsilon: What layer norms add to a variance.
    """

    tensors: Mapping[str, NDArray[Any]]
    heads: int
    norm_epsilon: float

    @classmethod
    def read(cls, path: Path) -> Int8Weights:
        """Read a file.

        Raises:
            ValueError: It is no such file, or lacks a tensor.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                told = json.loads((file.metadata() or {}).get(HEADER, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if told.get("format") != FORMAT:
            raise ValueError(f"{path}: format is {told.get('format')!r}, expected {FORMAT!r}")
        return cls(tensors, told["heads"], told["norm_epsilon"])

    def metadata(self) -> dict[str, str]:
        """Return what a file says of itself, as one entry: several come in a random order."""
        told = {"format": FORMAT, "heads": self.heads, "norm_epsilon": self.norm_epsilon}
        return {HEADER: json.dumps(told)}

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.tensors[name]
        except KeyError:
            raise ValueError(f"the int8 weights lack {name}") from None

    @property
    def layers(self) -> int:
        """How many layers there are."""
        numbers = (name.split(".")[3] for name in self.tensors if ".layer." in name)
        return len(set(numbers))

    @property
    def feed_forward(self) -> int:
        """The width of the feed-forward layers."""
        return len(self["bert.encoder.layer.0.intermediate.dense.bias"])

    @property
    def words(self) -> tuple[NDArray[np.int8], Float32s]:
        """The word embeddings, int8 [V, H], and their scales, float32 [V]."""
        return self[f"{WORDS}.weight"], self[f"{WORDS}.weight_scale"]

    def linear(self, name: str) -> Linear:
        """Return a linear map by the name of its module."""
        parts = (self[f"{name}.{part}"] for part in ("weight", "weight_scale", "bias"))
        return Linear(*parts)

    def dequantised(self) -> dict[str, Float32s]:
        """Return the float32 state of the Hugging Face model that these weights stand for."""
        state = {}
        for name, tensor in self.tensors.items():
            if f"{name}_scale" in self.tensors:
                rows = tensor if name.startswith(WORDS) else tensor.T
                state[name] = rows.astype(np.float32) * self[f"{name}_scale"][:, None]
            elif not name.endswith("_scale"):
                state[name] = tensor
        return state
