"""The one ranking order: descending score, ties by input order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_order(scores: ArrayLike) -> NDArray[np.intp]:
    """Return the indices of scores from best to worst, ties by input order, [n].

    Raises:
        ValueError: A score is NaN or infinite; such scores have no order.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"score {bad} is {values[bad]}; only finite scores can be ordered")
    return np.argsort(-values, kind="stable")
