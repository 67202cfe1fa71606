"""How far two scorers agree on the ranking of one query."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from service.contract.order import rank_order


def kendall_tau_b(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's τ-b of two score lists, in [-1, 1]; NaN where either is constant.

    Source:
        Kendall 1945; ties lower the denominator of the side they are on.
    """
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    sign_a = np.sign(a[:, None] - a[None, :])  # [n, n]
    sign_b = np.sign(b[:, None] - b[None, :])  # [n, n]
    untied = np.sqrt(float((sign_a != 0).sum()) * float((sign_b != 0).sum()))
    return float((sign_a * sign_b).sum() / untied) if untied else float("nan")


def top_overlap(first: ArrayLike, second: ArrayLike, k: int) -> float:
    """Return the share of the first list's top k that is in the second's top k, in [0, 1].

    With fewer than k documents, k is their number. 1.0 for empty lists.
    """
    top_a = rank_order(first)[:k]
    top_b = rank_order(second)[:k]
    return len(np.intersect1d(top_a, top_b)) / len(top_a) if len(top_a) else 1.0
