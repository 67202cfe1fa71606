"""A plain mosec server around ONNX Runtime: what one writes in an afternoon, written well."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mosec import Server, Worker

from loadtest.peers.wrapper import options, results_of

MODEL, THREADS = "BENCH_MOSEC_MODEL", "BENCH_MOSEC_THREADS"
MAX_LENGTH = 256
PAIRS_A_CALL = 8
"""Pairs a call, of similar length: fewest tokens of padding for the fewest calls."""

REQUESTS_A_BATCH = 8
WAIT_MS = 2
TIMEOUT_MS = 120_000


class Reranker(Worker):  # type: ignore[misc]
    """Scores the pairs of all the requests that mosec batched."""

    def __init__(self) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        folder = Path(os.environ[MODEL])
        session = ort.SessionOptions()
        session.intra_op_num_threads = int(os.environ[THREADS])
        (file,) = folder.glob("*.onnx")
        self._session = ort.InferenceSession(file, session, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_LENGTH, strategy="only_second")
        self._tokenizer.no_padding()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each request's scores."""
        pairs = [(asked["query"], text) for asked in data for text in asked["documents"]]
        encodings = self._tokenizer.encode_batch(pairs)
        scores = np.empty(len(pairs), dtype=np.float32)
        by_length = np.argsort([len(encoding) for encoding in encodings], kind="stable")
        for start in range(0, len(pairs), PAIRS_A_CALL):
            places = by_length[start : start + PAIRS_A_CALL]
            scores[places] = self._run([encodings[place] for place in places])
        ends = np.cumsum([len(asked["documents"]) for asked in data])[:-1]
        return [results_of(part.tolist()) for part in np.split(scores, ends)]

    def _run(self, encodings: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        longest = max(len(encoding) for encoding in encodings)
        inputs = np.zeros((3, len(encodings), longest), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            size = len(encoding)
            inputs[:, row, :size] = encoding.ids, encoding.attention_mask, encoding.type_ids
        names = ("input_ids", "attention_mask", "token_type_ids")
        (logits,) = self._session.run(["logits"], dict(zip(names, inputs, strict=True)))
        found: np.ndarray[Any, np.dtype[np.float32]] = logits[:, 0]
        return found


def main() -> None:
    """Serve workers that share the cores."""
    given = options()
    os.environ |= {MODEL: str(given.model), THREADS: str(given.threads // given.workers)}
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(given.port)]
    sys.argv += ["--timeout", str(TIMEOUT_MS)]
    server = Server()
    server.append_worker(
        Reranker,
        num=given.workers,
        max_batch_size=REQUESTS_A_BATCH,
        max_wait_time=WAIT_MS,
        timeout=TIMEOUT_MS // 1000,
    )
    server.run()


if __name__ == "__main__":
    main()
