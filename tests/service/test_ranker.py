"""From scores to places."""

import math

import numpy as np
import pytest

from service.contract.manifest import Relevance
from service.contract.types import Candidate
from service.ranking.ranker import ranked, relevance_of


def test_what_was_not_scored_comes_last_in_the_requests_order() -> None:
    candidates = [Candidate(id=name) for name in "abcde"]
    scores = np.array([0, 3, 9, 1, 3], dtype=np.float32)
    scored = np.array([False, True, False, True, True])
    places = ranked(candidates, scores, scored=scored)
    assert [(p.id, p.index, p.score, p.rank) for p in places] == [
        ("b", 1, 3.0, 1), ("e", 4, 3.0, 2), ("d", 3, 1.0, 3), ("a", 0, None, 4), ("c", 2, None, 5)
    ]  # fmt: skip
    assert ranked(candidates, scores, scored=scored, top_k=4) == places[:4]
    assert ranked(candidates, scores, scored=scored, top_k=2) == places[:2]
    nothing = ranked(candidates, scores, scored=np.zeros(5, dtype=np.bool_))
    assert [(p.index, p.score) for p in nothing] == [(n, None) for n in range(5)]


def test_relevance_is_the_float64_sigmoid_at_every_magnitude() -> None:
    platt = Relevance(scale=2.0, offset=-1.0)
    assert relevance_of([0.5, 0.0, 1.5], platt).tolist() == pytest.approx(
        [0.5, 1 / (1 + math.e), 1 / (1 + math.exp(-2))], abs=1e-15
    )
    extremes = relevance_of([-1000.0, -300.0, -30.0, -20.0, 1000.0], Relevance()).tolist()
    assert extremes[0] == 0.0
    assert extremes[1] == pytest.approx(math.exp(-300), rel=1e-12)  # a plain 1 - tanh gives 0
    assert extremes[2] < extremes[3]
    assert extremes[4] == 1.0
