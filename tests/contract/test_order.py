from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.order import rank_order

SCORES = st.lists(st.one_of(st.integers(-3, 3), st.floats(allow_nan=False, allow_infinity=False)))


@given(SCORES)
def test_scores_fall_and_ties_keep_input_order(scores: list[float]) -> None:
    assert rank_order(scores).tolist() == sorted(range(len(scores)), key=lambda i: -scores[i])


def test_many_ties_keep_input_order() -> None:
    scores = np.tile(np.array([0.5, 1.5], dtype=np.float32), 500)
    assert rank_order(scores).tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_zero_and_negative_zero_are_a_tie() -> None:
    assert rank_order([-0.0, 0.0, -0.0]).tolist() == [0, 1, 2]


def test_no_scores_have_an_empty_order() -> None:
    assert rank_order([]).tolist() == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_any_number_type_is_ordered_alike(dtype: type[np.generic]) -> None:
    assert rank_order(np.array([1, 3, 2, 0], dtype=dtype)).tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_refused_by_position(bad: float) -> None:
    with pytest.raises(ValueError, match=f"score 2 is {bad}"):
        rank_order([0.0, 1.0, bad, bad])
