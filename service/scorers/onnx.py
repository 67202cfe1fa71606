"""Scoring token pairs with ONNX Runtime, without padding and without neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract.encoding import TokenPair
from service.contract.types import Float32s

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
UNSEGMENTED_INPUTS = INPUTS[:2]
"""Of a model that knows no segments: a decoder, a RoBERTa, a DistilBERT, a ModernBERT."""
OUTPUT = "logits"


class OnnxScorer:
    """Scores each pair in a call of its own, at its exact length.

    The reference, and the engine of every CPU that the native one does not know. One pair a call
    makes a score a function of its pair alone, bit for bit, whatever the kernels do, and costs
    nothing on a CPU, whose tokens/s are flat in the batch size.
    """

    def __init__(self, model: Path, *, threads: int = 0) -> None:
        """Load the model.

        Args:
            model: An ONNX file with the inputs `INPUTS` or `UNSEGMENTED_INPUTS`, int64 [B, L],
                and `OUTPUT`, [B, 1].
            threads: Threads inside an operator; 0 takes one a core.

        Raises:
            ValueError: The file is no such model.
        """
        session = open_session(model, threads=threads)
        names = {node.name for node in session.get_inputs()}
        known = names in (set(INPUTS), set(UNSEGMENTED_INPUTS))
        if not known or OUTPUT not in [node.name for node in session.get_outputs()]:
            raise ValueError(
                f"{model} has inputs {sorted(names)}; a BERT has {INPUTS} -> {OUTPUT}, "
                f"a model without segments {UNSEGMENTED_INPUTS}"
            )
        self._session = session
        self._feeds = feeds if names == set(INPUTS) else unsegmented_feeds

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n]."""
        return np.array([self.score_one(pair) for pair in pairs], dtype=np.float32)

    def score_one(self, pair: TokenPair) -> float:
        """Return the raw logit of one pair."""
        (logits,) = self._session.run([OUTPUT], self._feeds(pair))  # [1, 1]
        return float(logits[0, 0])


def open_session(model: Path, *, threads: int = 0) -> Any:
    """Return ONNX Runtime's session of a model on the CPU.

    Raises:
        ValueError: The file does not load.
    """
    import onnxruntime as ort  # here, so that reading a bundle needs no runtime

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads steal the cores of whoever shares the machine: p95 133 -> 52 ms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ValueError(f"{model} does not load in ONNX Runtime: {error}") from error


def feeds(pair: TokenPair) -> dict[str, NDArray[np.int64]]:
    """Return a BERT's inputs for one pair at its exact length, each int64 [1, L]."""
    return {
        "input_ids": pair.input_ids[None, :],
        "attention_mask": np.ones((1, len(pair)), dtype=np.int64),
        "token_type_ids": pair.token_type_ids[None, :],
    }


def unsegmented_feeds(pair: TokenPair) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of a model without segments, for one pair, each int64 [1, L]."""
    return {
        "input_ids": pair.input_ids[None, :],
        "attention_mask": np.ones((1, len(pair)), dtype=np.int64),
    }
