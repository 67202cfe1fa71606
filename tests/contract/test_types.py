from __future__ import annotations

import numpy as np
import pytest

from service.contract.types import Candidate, RankingExample, Scores

TWO = (Candidate(id="a"), Candidate(id="b"))


def test_an_example_may_know_no_grades_and_no_scores() -> None:
    example = RankingExample("q1", "ice", TWO)
    assert example.grades is None
    assert example.teacher_scores is None


@pytest.mark.parametrize("field", ["grades", "teacher_scores"])
@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_an_example_has_one_value_a_candidate(field: str, values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"query 'q1': {len(values)} {field} for 2 candidates"):
        RankingExample("q1", "ice", TWO, **{field: values})


def test_scores_are_complete_when_every_candidate_was_scored() -> None:
    values = np.zeros(2, dtype=np.float32)
    assert Scores(values, np.array([True, True])).complete
    assert not Scores(values, np.array([True, False])).complete
    assert Scores(values[:0], np.array([], dtype=bool)).complete
