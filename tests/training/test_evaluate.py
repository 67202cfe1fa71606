"""Evaluation against ir-measures and scipy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Qrel, ScoredDoc, nDCG
from numpy.typing import NDArray
from scipy.optimize import minimize

from service.contract.types import Candidate, RankingExample
from training.evaluate import evaluate, fit_relevance

FloatArray = NDArray[np.float64]


def random_examples(count: int) -> tuple[list[RankingExample], dict[str, FloatArray]]:
    rng = np.random.default_rng(5)
    examples, scores = [], {}
    for number in range(count):
        size = int(rng.integers(2, 25))
        grades = rng.integers(0, 4, size)
        query_id = f"q{number}"
        scores[query_id] = grades + rng.normal(size=size) * 2
        candidates = tuple(Candidate(f"d{place}") for place in range(size))
        examples.append(RankingExample(query_id, "a query", candidates, tuple(map(float, grades))))
    return examples, scores


EXAMPLES, SCORES = random_examples(60)


def score(example: RankingExample) -> Sequence[float]:
    return [float(value) for value in SCORES[example.query_id]]


def test_means_are_ir_measures_over_the_same_run() -> None:
    qrels, run = [], []
    for example in EXAMPLES:
        names = [str(candidate.id) for candidate in example.candidates]
        for name, grade, value in zip(names, example.grades or (), score(example), strict=True):
            qrels.append(Qrel(example.query_id, name, int(grade)))
            run.append(ScoredDoc(example.query_id, name, value))
    expected = ir_measures.calc_aggregate([nDCG @ 5, nDCG @ 10, RR(rel=2) @ 10], qrels, run)
    found = evaluate(EXAMPLES, score, relevant_from=2)
    assert found.queries == 60
    assert found.ndcg_at_5.value == pytest.approx(expected[nDCG @ 5], abs=1e-12)
    assert found.ndcg_at_10.value == pytest.approx(expected[nDCG @ 10], abs=1e-12)
    assert found.mrr_at_10.value == pytest.approx(expected[RR(rel=2) @ 10], abs=1e-12)


def test_pnr_pools_the_pairs_of_all_queries() -> None:
    good = bad = 0
    for example in EXAMPLES:
        values = list(zip(example.grades or (), score(example), strict=True))
        for high, better in values:
            for low, worse in values:
                if high > low:
                    good += better > worse
                    bad += better < worse
    assert evaluate(EXAMPLES, score).pnr.value == pytest.approx(good / bad, rel=1e-12)


def test_intervals_bracket_the_figures_and_narrow_with_more_queries() -> None:
    few, many = evaluate(EXAMPLES[:10], score), evaluate(EXAMPLES, score)
    for found in (few, many):
        for figure in (found.ndcg_at_5, found.ndcg_at_10, found.mrr_at_10, found.pnr):
            assert figure.low < figure.value < figure.high
    widths = [found.ndcg_at_10.high - found.ndcg_at_10.low for found in (few, many)]
    assert widths[1] < widths[0]


def test_interval_is_the_normal_one_where_there_are_many_queries() -> None:
    examples, scores = random_examples(400)
    found = evaluate(examples, lambda example: scores[example.query_id].astype(np.float32))
    each = [
        evaluate([example], lambda row: scores[row.query_id].astype(np.float32)).ndcg_at_10.value
        for example in examples
    ]
    half = 1.96 * float(np.std(each)) / math.sqrt(len(each))
    assert found.ndcg_at_10.low == pytest.approx(np.mean(each) - half, abs=0.2 * half)
    assert found.ndcg_at_10.high == pytest.approx(np.mean(each) + half, abs=0.2 * half)


def test_same_seed_same_interval() -> None:
    assert evaluate(EXAMPLES, score) == evaluate(EXAMPLES, score)
    assert (
        evaluate(EXAMPLES, score, seed=1).ndcg_at_10.low != evaluate(EXAMPLES, score).ndcg_at_10.low
    )


def test_missed_documents_lower_ndcg() -> None:
    example = RankingExample("q", "a", (Candidate("d"),), (1.0,))
    ideal = {"q": [1.0, 3.0]}
    found = evaluate([example], lambda _: [0.5], ideal=ideal)
    assert found.ndcg_at_10.value == pytest.approx(1 / (3 + 1 / math.log2(3)))
    assert evaluate([example], lambda _: [0.5]).ndcg_at_10.value == 1.0


def test_a_faultless_ranking_can_be_written_as_json() -> None:
    example = RankingExample("q", "a", (Candidate("d"), Candidate("e")), (1.0, 0.0))
    found = evaluate([example], lambda _: [1.0, 0.0])
    assert found.pnr.value == math.inf
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert json.loads(text)["ndcg_at_10"] == [1.0, 1.0, 1.0]
    assert json.loads(text)["pnr"] == [None, None, None]


def test_a_ranking_without_pairs_can_be_written_as_json() -> None:
    example = RankingExample("q", "a", (Candidate("d"),), (0.0,))
    found = evaluate([example], lambda _: [1.0])
    assert math.isnan(found.pnr.value)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["ndcg_at_10"] == [0, 0, 0]


def platt(scores: FloatArray, relevant: NDArray[np.bool_]) -> tuple[float, float]:
    """Return scale and offset by a general optimiser from several starts."""
    positives, negatives = int(relevant.sum()), int((~relevant).sum())
    target = np.where(relevant, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(weights: FloatArray) -> float:
        z = weights[0] * scores + weights[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    starts = ([0.0, 0.0], [1.0, 0.0], [0.05, -1.0], [10.0, 0.0])
    results = [
        minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
        for start in starts
    ]
    best = min(results, key=lambda result: float(result.fun)).x
    return float(best[0]), float(best[1])


@pytest.mark.parametrize("spread", [0.2, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 2.0])
@pytest.mark.parametrize("count", [12, 200])
def test_relevance_is_the_optimum_of_platts_targets(
    spread: float, shift: float, count: int
) -> None:
    rng = np.random.default_rng(3)
    relevant = rng.random(count) < 0.3
    scores = spread * (rng.normal(size=count) + 2 * relevant) + shift
    found = fit_relevance([float(value) for value in scores], [bool(one) for one in relevant])
    assert found == pytest.approx(platt(scores, relevant), rel=1e-3, abs=1e-4)


def test_relevance_with_one_far_negative_is_the_optimum() -> None:
    scores = np.array([*np.linspace(50.5, 51, 13), -0.1])  # whole Newton steps run off here
    relevant = np.array([True] * 13 + [False])
    found = fit_relevance(scores.tolist(), relevant.tolist())
    assert found == pytest.approx(platt(scores, relevant), rel=1e-3)


def test_relevance_of_separable_scores_stays_finite_and_ordered() -> None:
    scale, offset = fit_relevance([-3, -2, 2, 3], [False, False, True, True])
    assert 0 < scale < 10
    assert offset == pytest.approx(0, abs=1e-9)  # symmetric scores


@pytest.mark.parametrize(
    ("scores", "relevant"),
    [
        ([], []),
        ([1.0, 2.0], [True, True]),
        ([1.0, 2.0], [False, False]),
        ([1.0, 1.0], [True, False]),
        ([1.0, 2.0, 3.0], [True, True, False]),  # the fit would turn the order round
    ],
)
def test_relevance_without_a_usable_fit_is_the_plain_sigmoid(
    scores: list[float], relevant: list[bool]
) -> None:
    assert fit_relevance(scores, relevant) == (1.0, 0.0)


def test_pairwise_accuracy_is_the_share_of_pairs_that_pnr_says() -> None:
    found = evaluate(EXAMPLES, score)
    for part in ("value", "low", "high"):
        ratio = getattr(found.pnr, part)
        assert getattr(found.pairwise_accuracy, part) == pytest.approx(ratio / (1 + ratio))
    assert found.pairwise_accuracy.low < found.pairwise_accuracy.value


def test_without_discordant_pairs_pnr_is_infinite_and_accuracy_one() -> None:
    pair = (Candidate("d"), Candidate("e"))
    examples = [RankingExample(f"q{n}", "a", pair, (1.0, 0.0)) for n in range(3)]
    found = evaluate(examples, lambda _: [1.0, 0.0])
    assert (found.pnr.value, found.pnr.low, found.pnr.high) == (math.inf,) * 3
    assert str(found.pairwise_accuracy) == "1.0000 [1.0000, 1.0000]"


def test_one_query_with_a_discordant_pair_bounds_pnr_from_below_only() -> None:
    pair = (Candidate("d"), Candidate("e"))
    examples = [RankingExample(f"q{n}", "a", pair, (1.0, float(n == 0) * 2)) for n in range(8)]
    found = evaluate(examples, lambda _: [1.0, 0.0])
    assert found.pnr.value == 7.0
    assert found.pnr.low < 7.0
    assert found.pnr.high == math.inf  # a third of the resamples miss the one query


def test_resamples_without_any_pair_do_not_count() -> None:
    one = RankingExample("q", "a", (Candidate("d"), Candidate("e")), (1.0, 0.0))
    without = [RankingExample(f"n{n}", "a", (Candidate("d"),), (1.0,)) for n in range(3)]
    found = evaluate([one, *without], lambda row: [1.0, 0.0][: len(row.candidates)])
    assert str(found.pairwise_accuracy) == "1.0000 [1.0000, 1.0000]"


def test_exponential_gain_is_ir_measures_over_mapped_grades() -> None:
    gains = {1: 1, 2: 3, 3: 7}
    qrels, run = [], []
    for example in EXAMPLES:
        names = [str(candidate.id) for candidate in example.candidates]
        for name, grade, value in zip(names, example.grades or (), score(example), strict=True):
            qrels.append(Qrel(example.query_id, name, int(grade)))
            run.append(ScoredDoc(example.query_id, name, value))
    expected = ir_measures.calc_aggregate([nDCG(gains=gains) @ 5], qrels, run)
    found = evaluate(EXAMPLES, score, gain="exponential")
    assert found.ndcg_at_5.value == pytest.approx(expected[nDCG(gains=gains) @ 5], abs=1e-12)
    assert found.as_dict()["gain"] == "exponential"
