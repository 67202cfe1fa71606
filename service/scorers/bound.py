"""Scoring padded pairs with ONNX Runtime on a GPU, through buffers that stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.triton import MAX_BATCH
from service.contract.types import Float32s
from service.scorers.buckets import by_width, padded
from service.scorers.onnx import OUTPUT, open_session

BoundDevice = Literal["cuda", "cpu"]

CUDA = "CUDAExecutionProvider"

ROWS = (4, 12, 24, MAX_BATCH)
"""Rows that calls are filled up to: a graph each, and a GPU hardly notices the rest."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """A shape's buffers on the device, which its CUDA graph reads and writes."""

    inputs: dict[str, Any]
    output: Any
    binding: Any
    options: Any


class BoundScorer:
    """Scores pairs padded to few widths and numbers of rows, each shape with its CUDA graph.

    Every shape is run once when the model loads, so that no request waits for a capture. A score
    depends on its row alone up to rounding: kernels differ from shape to shape.
    """

    def __init__(
        self, model: Path, *, widths: Sequence[int], pad: int, device: BoundDevice = "cuda"
    ) -> None:
        """Load the model and run every shape once.

        Args:
            model: An ONNX file as `OnnxScorer` takes them, in fp32 or fp16.
            widths: Tokens of the rows, ascending.
            pad: Id that rows are padded with.
            device: Where it runs; "cpu" is for trying the same code without a GPU.

        Raises:
            ValueError: The file is no such model, or does not run whole on a GPU.
        """
        self._session = open_session(model) if device == "cpu" else open_cuda_session(model)
        self._names = [node.name for node in self._session.get_inputs()]
        self._widths, self._pad = tuple(widths), pad
        self._lock = Lock()  # the buffers are one call's at a time
        shapes = [(rows, width) for width in self._widths for rows in ROWS]
        self._shapes = {
            shape: self._bind(*shape, number, device)
            for number, shape in enumerate(shapes, start=1)
        }
        for shape in self._shapes.values():
            self._session.run_with_iobinding(shape.binding, shape.options)

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n]."""
        scores = np.zeros(len(pairs), dtype=np.float32)
        for part in by_width(pairs, self._widths, MAX_BATCH):
            scores[part.places] = self._run([pairs[i] for i in part.places], part.width)
        return scores

    def padded_tokens(self, pairs: Sequence[TokenPair]) -> int:
        """Return the tokens that the GPU runs for these pairs, padding included."""
        parts = by_width(pairs, self._widths, MAX_BATCH)
        return sum(_rows(len(part.places)) * part.width for part in parts)

    def _run(self, pairs: Sequence[TokenPair], width: int) -> Float32s:
        rows = _rows(len(pairs))
        filled = [*pairs, *[pairs[-1]] * (rows - len(pairs))]
        feeds, shape = padded(filled, width, self._pad), self._shapes[rows, width]
        with self._lock:
            for name, value in shape.inputs.items():
                value.update_inplace(feeds[name])
            self._session.run_with_iobinding(shape.binding, shape.options)
            logits: Float32s = np.array(shape.output.numpy())  # [rows, 1]
        return logits[: len(pairs), 0]

    def _bind(self, rows: int, width: int, number: int, device: BoundDevice) -> _Shape:
        import onnxruntime as ort

        some = TokenPair(np.full(width, self._pad, dtype=np.int64), 1)
        feeds = padded([some] * rows, width, self._pad)
        inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(feeds[name], device, 0) for name in self._names
        }
        output = ort.OrtValue.ortvalue_from_shape_and_type((rows, 1), np.float32, device, 0)
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(OUTPUT, output)
        options = ort.RunOptions()
        if device == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(number))
        return _Shape(inputs, output, binding, options)


def open_cuda_session(model: Path) -> Any:
    """Return ONNX Runtime's session of a model of which every operator runs on the first GPU.

    Raises:
        ValueError: There is no CUDA here, or the model would run on the CPU in part.
    """
    import onnxruntime as ort

    if CUDA not in ort.get_available_providers():
        raise ValueError(
            "device cuda: the installed onnxruntime has no CUDA: pip uninstall onnxruntime, then "
            "pip install '.[gpu]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Without these it would go on with the CPU and say nothing.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = {
        "enable_cuda_graph": "1",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
    }
    try:
        session = ort.InferenceSession(
            model, options, providers=[(CUDA, provider)], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ValueError(
            f"device cuda: {model} does not run whole on a GPU; what ONNX Runtime said before "
            f"tells whether CUDA's libraries, a GPU or an operator is missing: {error}"
        ) from error
    if session.get_providers()[:1] != [CUDA]:
        raise ValueError(
            "device cuda: no GPU was found, or not CUDA's libraries; ONNX Runtime would run on "
            f"{', '.join(session.get_providers())}"
        )
    return session


def _rows(n: int) -> int:
    return next(rows for rows in ROWS if rows >= n)
