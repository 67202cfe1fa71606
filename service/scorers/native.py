"""Scoring token pairs in int8 with our own kernel, `kernel/bert.c`, compiled at installation."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.encoding import TokenPair
from service.contract.types import Float32s
from service.scorers.portions import PORTION_TOKENS, portions
from service.scorers.weights import Int8Weights

KERNELS = ("avx512vnni", "avxvnni", "avx2")
"""What `kernel/` is compiled for, the fastest first: plain shared libraries, no Python modules."""

ABI = 1
"""`bert_abi` of the sources that the structures below are those of."""

ALIGNMENT = 64
"""Bytes: a cache line, and the kernel's widest vector."""


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("column_sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("query", _Linear),
        ("key_value", _Linear),
        ("attended", _Linear),
        ("up", _Linear),
        ("down", _Linear),
        ("attention_norm", _Norm),
        ("output_norm", _Norm),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("feed_forward", ctypes.c_int64),
        ("layer_count", ctypes.c_int64),
        ("vocabulary", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("words", ctypes.c_void_p),
        ("word_scales", ctypes.c_void_p),
        ("position_rows", ctypes.c_void_p),
        ("segment_rows", ctypes.c_void_p),
        ("embedding_norm", _Norm),
        ("layers", ctypes.POINTER(_Layer)),
        ("pooler", _Linear),
        ("classifier", ctypes.c_void_p),
        ("classifier_bias", ctypes.c_float),
        ("norm_epsilon", ctypes.c_float),
    )


class NativeScorer:
    """Scores pairs in int8 with a scale per token, several pairs a call, without padding.

    A score is a function of its pair alone, bit for bit, whatever else is in the call. May be
    called from several threads at once; each call runs on its thread's core, without the GIL.
    """

    def __init__(self, weights: Path, *, kernel: str | None = None) -> None:
        """Load the weights.

        Args:
            weights: The safetensors file that lies beside an int8 graph.
            kernel: One of `kernels()`, by default the first.

        Raises:
            ValueError: The file is no such file, or `why_not` names a reason.
        """
        if reason := why_not():
            raise ValueError(reason)
        self._kernel = kernels()[kernel] if kernel else next(iter(kernels().values()))
        loaded = Int8Weights.read(weights)
        _require_shapes(loaded)
        self._held: list[NDArray[Any]] = []  # what the structure below points into
        self._model = self._structure(loaded)
        self._scratch = threading.local()

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n].

        Raises:
            ValueError: A pair is longer than the model's positions, or an id is not in its
                vocabulary.
        """
        scores = np.empty(len(pairs), dtype=np.float32)
        start = 0
        for call in portions(pairs):
            scores[start : start + len(call)] = self._call(call)
            start += len(call)
        return scores

    def _call(self, pairs: Sequence[TokenPair]) -> Float32s:
        ids = np.concatenate([pair.input_ids for pair in pairs]).astype(np.int32)
        lengths = np.array([len(pair) for pair in pairs], dtype=np.int32)
        first_segments = np.array([pair.first_segment for pair in pairs], dtype=np.int32)
        scores = np.empty(len(pairs), dtype=np.float32)
        refused = self._kernel.bert_score(
            ctypes.byref(self._model),
            ids.ctypes.data,
            lengths.ctypes.data,
            first_segments.ctypes.data,
            len(pairs),
            self._scratch_for(len(ids)),
            scores.ctypes.data,
        )
        if refused:
            raise ValueError(
                f"a pair of up to {lengths.max()} tokens or an id of up to {ids.max()} is beyond "
                f"the model's {self._model.positions} positions, {self._model.vocabulary} ids"
            )
        return scores

    def _scratch_for(self, tokens: int) -> int:
        """Return the address of this thread's scratch, large enough for the tokens."""
        held: NDArray[np.uint8] | None = getattr(self._scratch, "bytes", None)
        if held is None or tokens > self._scratch.tokens:
            most = max(tokens, PORTION_TOKENS)
            size = self._kernel.bert_scratch_bytes(ctypes.byref(self._model), most)
            held = _aligned(np.zeros(size, dtype=np.uint8))
            self._scratch.bytes, self._scratch.tokens = held, most
        return held.ctypes.data

    def _structure(self, weights: Int8Weights) -> _Model:
        layers = (_Layer * weights.layers)(
            *(self._layer(weights, number) for number in range(weights.layers))
        )
        word_rows, word_scales = weights.words
        vocabulary, hidden = word_rows.shape
        return _Model(
            hidden=hidden,
            heads=weights.heads,
            feed_forward=weights.feed_forward,
            layer_count=weights.layers,
            vocabulary=vocabulary,
            positions=len(weights["bert.embeddings.position_embeddings.weight"]),
            words=self._hold(word_rows),
            word_scales=self._hold(word_scales),
            position_rows=self._hold(weights["bert.embeddings.position_embeddings.weight"]),
            segment_rows=self._hold(weights["bert.embeddings.token_type_embeddings.weight"]),
            embedding_norm=self._norm(weights, "bert.embeddings.LayerNorm"),
            layers=layers,
            pooler=self._linear(weights, "bert.pooler.dense"),
            classifier=self._hold(weights["classifier.weight"]),
            classifier_bias=float(weights["classifier.bias"][0]),
            norm_epsilon=weights.norm_epsilon,
        )

    def _layer(self, weights: Int8Weights, number: int) -> _Layer:
        layer = f"bert.encoder.layer.{number}"
        attention = f"{layer}.attention"
        return _Layer(
            query=self._linear(weights, f"{attention}.self.query"),
            key_value=self._linear(weights, f"{attention}.self.key", f"{attention}.self.value"),
            attended=self._linear(weights, f"{attention}.output.dense"),
            up=self._linear(weights, f"{layer}.intermediate.dense"),
            down=self._linear(weights, f"{layer}.output.dense"),
            attention_norm=self._norm(weights, f"{attention}.output.LayerNorm"),
            output_norm=self._norm(weights, f"{layer}.output.LayerNorm"),
        )

    def _linear(self, weights: Int8Weights, *names: str) -> _Linear:
        """Return linear maps of the same input as one, in the kernel's layout."""
        parts = [weights.linear(name) for name in names]
        matrix = np.concatenate([part.values for part in parts], axis=1)  # [K, N]
        k, n = matrix.shape
        panel, group = self._kernel.bert_panel(), self._kernel.bert_group()
        padded = np.zeros((-(-n // panel) * panel, k), dtype=f"i{self._kernel.bert_weight_bytes()}")
        padded[:n] = matrix.T
        panels = padded.reshape(-1, panel, k // group, group).transpose(0, 2, 1, 3)
        scales, bias = np.zeros((2, len(padded)), dtype=np.float32)
        scales[:n] = np.concatenate([part.scales for part in parts])
        bias[:n] = np.concatenate([part.bias for part in parts])
        return _Linear(
            weights=self._hold(panels),
            scales=self._hold(scales),
            column_sums=self._hold(scales * padded.sum(axis=1, dtype=np.float32)),
            bias=self._hold(bias),
            inputs=k,
            outputs=n,
        )

    def _norm(self, weights: Int8Weights, name: str) -> _Norm:
        return _Norm(self._hold(weights[f"{name}.weight"]), self._hold(weights[f"{name}.bias"]))

    def _hold(self, array: NDArray[Any]) -> int:
        """Keep an aligned copy of the array and return its address."""
        self._held.append(_aligned(array))
        return self._held[-1].ctypes.data


def why_not() -> str | None:
    """Return why no kernel can run in this process, or None where one can."""
    if kernels():
        return None
    if not any(_found(name) for name in KERNELS):
        return (
            "the native kernels were not compiled: install the package again, on x86-64 with a C "
            "compiler (Debian: gcc, libc6-dev)"
        )
    return "the native kernels need an x86-64 CPU with AVX2, or were compiled from other sources"


def why_not_widths(*, hidden: int, feed_forward: int, heads: int) -> str | None:
    """Return why no kernel computes layers of these widths, or None: they are whole vectors."""
    widths = {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "head width": hidden // heads,
    }
    for name, width in widths.items():
        if width % 16 or width > 65_536:
            return f"the native kernel needs a {name} in steps of 16, got {width}"
    return None


@cache
def kernels() -> Mapping[str, Any]:
    """Return the kernels that run on this CPU, the fastest first, by name."""
    libraries = {name: ctypes.CDLL(path) for name in KERNELS if (path := _found(name))}
    return {
        name: _declared(library)
        for name, library in libraries.items()
        if library.bert_abi() == ABI and library.bert_runs_here()
    }


def _found(name: str) -> str | None:
    spec = find_spec(f"service.scorers._bert_{name}")
    return spec.origin if spec else None


def _declared(library: Any) -> Any:
    pointer, int64 = ctypes.c_void_p, ctypes.c_int64
    for layout in ("bert_panel", "bert_group", "bert_weight_bytes", "bert_scratch_bytes"):
        getattr(library, layout).restype = int64
    library.bert_scratch_bytes.argtypes = (pointer, int64)
    library.bert_score.argtypes = (pointer, pointer, pointer, pointer, int64, pointer, pointer)
    return library


def _require_shapes(weights: Int8Weights) -> None:
    reason = why_not_widths(
        hidden=weights.words[0].shape[1], feed_forward=weights.feed_forward, heads=weights.heads
    )
    if reason is not None:
        raise ValueError(reason)


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous copy that starts on a multiple of `ALIGNMENT`."""
    room = np.empty(array.nbytes + ALIGNMENT, dtype=np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
