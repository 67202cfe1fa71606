"""int8: weights quantised once, with a scale per output channel, and activations at run time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.int8_graph import write_graph
from service.contract.types import Float32s
from service.scorers.weights import WORDS, Int8Weights

FLOATS = ("position_embeddings", "token_type_embeddings", "LayerNorm", "classifier")
"""Modules that stay float32: they are small, and rankings are sensitive to them."""


def quantize_int8(checkpoint: Path, graph: Path, weights: Path, *, positions: int) -> None:
    """Write a checkpoint's int8 weights and the graph that runs them in ONNX Runtime.

    Args:
        checkpoint: A Hugging Face folder of a BERT with one label.
        graph: The ONNX file to write.
        weights: The safetensors file to write, in the same folder.
        positions: Longest pair; positions beyond are left out.

    Raises:
        ExportError: The checkpoint has weights that are not finite.
    """
    from safetensors.numpy import save_file

    quantised = quantised_weights(checkpoint, positions=positions)
    save_file(dict(quantised.tensors), weights, metadata=quantised.metadata())
    write_graph(quantised, weights, graph)


def quantised_weights(checkpoint: Path, *, positions: int) -> Int8Weights:
    """Return a checkpoint's weights in int8."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in _state(checkpoint).items():
        if not np.isfinite(values).all():
            raise ExportError(f"{checkpoint}: {name} has a value that is not finite")
        if name.endswith("position_embeddings.weight"):
            tensors[name] = values[:positions].copy()
        elif values.ndim == 1 or any(kept in name for kept in FLOATS):
            tensors[name] = values
        else:
            rows, scales = quantise_rows(values)
            tensors[name] = rows if name.startswith(WORDS) else np.ascontiguousarray(rows.T)
            tensors[f"{name}_scale"] = scales
    return Int8Weights(tensors, config["num_attention_heads"], config["layer_norm_eps"])


def quantise_rows(values: Float32s) -> tuple[NDArray[np.int8], Float32s]:
    """Return int8 values in [-127, 127] and a scale per row, [N, K] and [N]; zeros stay zeros."""
    largest = np.abs(values).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)  # [N]
    return np.rint(values / scales[:, None]).astype(np.int8), scales


def _state(checkpoint: Path) -> dict[str, Float32s]:
    """Return the parameters of the checkpoint, whichever format holds them."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    return {name: values.detach().float().numpy() for name, values in model.named_parameters()}
