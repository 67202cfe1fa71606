"""A check of padded rows: does company change a score?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.contract.encoding import TokenPair
from service.contract.types import Float32s
from service.scorers.onnx import INPUTS, OUTPUT, open_session

ROWS = 8
"""Pairs a call."""


class PaddedScorer:
    """Scores pairs several a call, padded on the right to the longest of the call.

    The service does not pad; whoever serves the bundle on a GPU does, and gets the same scores.
    """

    def __init__(self, model: Path, *, pad: int) -> None:
        """Load an ONNX file; rows are padded with the id `pad`."""
        self._session = open_session(model)
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._pad = pad

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n]."""
        calls = [pairs[start : start + ROWS] for start in range(0, len(pairs), ROWS)]
        return np.concatenate([self._call(call) for call in calls])

    def _call(self, pairs: Sequence[TokenPair]) -> Float32s:
        shape = len(pairs), max(map(len, pairs))
        ids, mask, segments = np.zeros((3, *shape), dtype=np.int64)  # [B, L] each
        ids += self._pad
        for row, pair in enumerate(pairs):
            ids[row, : len(pair)], mask[row, : len(pair)] = pair.input_ids, 1
            segments[row, : len(pair)] = pair.token_type_ids
        known = dict(zip(INPUTS, (ids, mask, segments), strict=True))
        feeds = {name: known[name] for name in self._inputs}
        logits: Float32s = self._session.run([OUTPUT], feeds)[0]  # [B, 1]
        return logits[:, 0]
