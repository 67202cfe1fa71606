"""Parity figures against scipy and hand-computed ones; every gate can fail."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from export.errors import ExportError
from export.parity import GATES, Gates, Parity, compare
from service.contract.encoding import TokenPair
from service.contract.types import Candidate, Float32s, RankingExample

FIELDS = {
    "queries": 3,
    "pairs": 9,
    "max_delta": 0.1,
    "mean_delta": 0.01,
    "kendall_tau": 0.9,
    "top10_overlap": 0.8,
    "ndcg_drop": 0.02,
}


def example(size: int, grades: Sequence[float] | None = None) -> RankingExample:
    candidates = tuple(Candidate(str(place)) for place in range(size))
    return RankingExample(str(size), "q", candidates, None if grades is None else tuple(grades))


def compared(
    examples: Sequence[RankingExample],
    reference: Sequence[ArrayLike],
    found: Sequence[ArrayLike],
) -> Parity:
    """Return the parity of a model that answers `found`."""
    answers = iter(found)

    def score(pairs: Sequence[TokenPair]) -> Float32s:
        scores = np.array(next(answers), dtype=np.float32)
        assert len(scores) == len(pairs)
        return scores

    pair = TokenPair(np.zeros(3, dtype=np.int64), 2)
    pairs = [[pair] * len(row.candidates) for row in examples]
    expected = [np.array(row, dtype=np.float32) for row in reference]
    return compare(examples, pairs, expected, score, name="int8")


def test_figures_by_hand() -> None:
    found = compared(
        [example(3, [0, 2, 1]), example(2)], [[3, 2, 1], [0, 1]], [[2, 2.5, 1], [0, 1.25]]
    )
    # τ: of three pairs two agree and one does not, 1/3; and 1. Swapping the first two of the
    # first query raises its nDCG from (2/log2(3) + 1/2) to (2 + 1/2) over 2 + 1/log2(3).
    assert (found.queries, found.pairs) == (2, 5)
    assert found.max_delta == pytest.approx(1.0)
    assert found.mean_delta == pytest.approx((1 + 0.5 + 0.25) / 5)
    assert found.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert found.top10_overlap == 1.0
    assert found.ndcg_drop == pytest.approx((2 / math.log2(3) - 2) / (2 + 1 / math.log2(3)))


def test_tau_is_scipys_and_overlap_counts_the_top_ten() -> None:
    rng = np.random.default_rng(2)
    sizes = (4, 12, 30, 30)
    reference = [rng.normal(size=size).round(1) for size in sizes]  # some ties
    found = [row + rng.normal(size=len(row)) * 0.4 for row in reference]
    result = compared([example(size) for size in sizes], reference, found)
    taus = [kendalltau(left, right).statistic for left, right in zip(reference, found, strict=True)]
    assert result.kendall_tau == pytest.approx(np.mean(taus), abs=1e-6)
    overlaps = [
        len(set(np.argsort(-left, kind="stable")[:10]) & set(np.argsort(-right)[:10])) / 10
        for left, right in zip(reference[1:], found[1:], strict=True)
    ]
    assert 0 < np.mean(overlaps) < 1
    assert result.top10_overlap == pytest.approx(np.mean(overlaps))  # four candidates tell nothing
    assert result.ndcg_drop is None


def test_a_query_of_one_candidate_has_a_delta_but_no_order() -> None:
    found = compared([example(1)], [[1]], [[1.5]])
    assert (found.queries, found.pairs, found.max_delta) == (0, 1, 0.5)
    assert (found.kendall_tau, found.top10_overlap) == (1.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ExportError, match="int8: query '2' has a score that is not finite"):
        compared([example(2)], [[1, 2]], [[1, value]])


@pytest.mark.parametrize(
    ("gates", "line"),
    [
        (Gates(max_delta=0.05), "max |Δ| is 0.100000, the gate is at most 0.05"),
        (Gates(min_tau=0.95), "Kendall τ is 0.900000, the gate is at least 0.95"),
        (Gates(min_overlap=0.9), "top-10 overlap is 0.800000, the gate is at least 0.9"),
        (Gates(max_ndcg_drop=0.01), "nDCG@10 drop is 0.020000, the gate is at most 0.01"),
    ],
)
def test_a_gate_that_fails_says_so(gates: Gates, line: str) -> None:
    assert Parity(**FIELDS).failures(gates) == [line]  # type: ignore[arg-type]


def test_gates_hold_at_their_limit() -> None:
    gates = Gates(max_delta=0.1, min_tau=0.9, min_overlap=0.8, max_ndcg_drop=0.02)
    assert Parity(**FIELDS).failures(gates) == []  # type: ignore[arg-type]


def test_figures_that_are_no_number_pass_no_gate() -> None:
    nan = dict.fromkeys(FIELDS, math.nan)
    gates = Gates(max_delta=1, min_tau=0, min_overlap=0, max_ndcg_drop=1)
    assert len(Parity(**nan).failures(gates)) == 4  # type: ignore[arg-type]


def test_without_grades_the_ndcg_gate_does_not_apply() -> None:
    ungraded = Parity(**{**FIELDS, "ndcg_drop": None})  # type: ignore[arg-type]
    assert ungraded.failures(Gates(max_ndcg_drop=0)) == []


def test_both_precisions_are_gated_by_default() -> None:
    assert GATES["fp32"].max_delta == 1e-4
    for limit in (GATES["int8"].min_tau, GATES["int8"].min_overlap):
        assert limit is not None
        assert limit >= 0.95
    assert GATES["int8"].max_ndcg_drop is not None


def test_scores_above_ten_may_differ_by_as_many_digits() -> None:
    small, large = (np.array([-scale, scale / 2], dtype=np.float32) for scale in (10, 40))
    empty = np.array([], dtype=np.float32)
    assert GATES["fp32"].for_scores([small, empty]) == GATES["fp32"]
    assert GATES["fp32"].for_scores([small, large]).max_delta == pytest.approx(4e-4)
    assert GATES["int8"].for_scores([large]) == GATES["int8"]
