"""Comparisons against scipy, plain Python and values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import kendalltau, ks_2samp

from service.contract.agreement import population_stability
from service.rollout.compare import compare, guard, rounded
from service.rollout.metrics import ComparisonMetrics, Contestants
from service.rollout.scores import EDGES, ENOUGH, RECENT, ScoreHistogram, drift

PAIR = Contestants("student", "0123", "stable", "teacher", "remote")
LABELS = {
    "model": "student",
    "version": "0123",
    "variant": "stable",
    "against": "teacher",
    "against_version": "remote",
}


def floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, dtype=np.float32)


def test_a_comparison_by_hand() -> None:
    # The student's order is a b c d, the teacher's b a c d: one of six pairs disagrees.
    found = compare(floats(4, 3, 2, 1), floats(0.5, 1, 0, -1))
    assert found.candidates == 4
    assert found.tau_b == pytest.approx(4 / 6)
    assert (found.overlap_1, found.overlap_3, found.overlap_10) == (0.0, 1.0, 1.0)
    # Agreement at depths 1 to 4 is 0, 1, 1, 1; below, it goes on: only depth 1's weight is lost.
    assert found.rbo == pytest.approx(0.9)
    gains = [9 / math.log2(2), 10 / math.log2(3), 8 / math.log2(4), 7 / math.log2(5)]
    ideal = [10 / math.log2(2), 9 / math.log2(3), 8 / math.log2(4), 7 / math.log2(5)]
    assert found.ndcg_10 == pytest.approx(sum(gains) / sum(ideal))
    assert found.largest_delta == 3.5


def rbo_of_sets(first: list[float], second: list[float], p: float) -> float:
    """Return RBO_EXT term by term, over sets."""
    a, b = (sorted(range(len(s)), key=lambda i: -s[i]) for s in (first, second))
    n = len(a)
    overlaps = [len(set(a[:d]) & set(b[:d])) for d in range(1, n + 1)]
    terms = sum(x / d * p**d for d, x in enumerate(overlaps, start=1))
    return overlaps[-1] / n * p**n + (1 - p) / p * terms


SCORES = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-9, 9), min_size=n, max_size=n)] * 2)
)


@given(SCORES)
def test_measures_are_those_of_other_implementations(scores: tuple[list[int], list[int]]) -> None:
    first, second = (floats(*values) for values in scores)
    found = compare(first, second)
    tau = kendalltau(first, second, variant="b").statistic if len(first) > 1 else math.nan
    assert found.tau_b == pytest.approx(tau, abs=1e-12, nan_ok=True)
    assert found.rbo == pytest.approx(rbo_of_sets([*first], [*second], 0.9), abs=1e-12)
    tops = [np.argsort([-value for value in values], kind="stable")[:3] for values in scores]
    assert found.overlap_3 == len({*tops[0]} & {*tops[1]}) / len(tops[0])
    assert found.largest_delta == max(abs(a - b) for a, b in zip(*scores, strict=True))
    assert 0 <= found.ndcg_10 <= 1


def test_the_same_scores_agree_in_everything() -> None:
    scores = np.random.default_rng(0).normal(size=48).astype(np.float32)
    found = compare(scores, scores)
    assert (found.tau_b, found.rbo, found.ndcg_10, found.largest_delta) == (1, 1, 1, 0)
    assert (found.overlap_1, found.overlap_3, found.overlap_10) == (1, 1, 1)
    assert compare(floats(5), floats(-3)).rbo == 1.0


def test_scores_that_rank_nothing_are_named() -> None:
    assert guard(floats(1, 2)) is None
    assert guard(floats(1)) is None
    assert guard(floats(2, 2, 2)) == "constant"
    assert guard(floats(1, float("nan"))) == "not_finite"
    assert guard(floats(float("-inf"), 1)) == "not_finite"
    constant = compare(floats(2, 2, 2), floats(1, 2, 3))
    assert math.isnan(constant.tau_b)
    assert rounded(constant)["tau_b"] is None


def test_drift_is_scipys_on_the_buckets_of_the_scores() -> None:
    draw = np.random.default_rng(1)
    samples = [draw.normal(mean, 1, size=2000).astype(np.float32) for mean in (0, 0.7)]
    histograms = ScoreHistogram(), ScoreHistogram()
    for histogram, scores in zip(histograms, samples, strict=True):
        for part in np.split(scores, 20):
            histogram.add(part)
    stability, distance = drift(*histograms)
    buckets = [np.searchsorted(EDGES, scores) for scores in samples]
    assert distance == pytest.approx(ks_2samp(*buckets).statistic, abs=1e-12)
    # With bins at the scores' own deciles instead of the buckets nearest to them.
    assert stability == pytest.approx(population_stability(*samples), rel=0.15)
    assert stability > 0.25
    assert drift(histograms[0], histograms[0]) == (0.0, 0.0)


def test_stability_of_buckets_by_hand() -> None:
    histograms = ScoreHistogram(), ScoreHistogram()
    for histogram, low in zip(histograms, (500, 250), strict=True):
        histogram.add(np.full(low, -0.1, dtype=np.float32))
        histogram.add(np.full(1000 - low, 0.1, dtype=np.float32))
    expected = (0.25 - 0.5) * math.log(0.25 / 0.5) + (0.75 - 0.5) * math.log(0.75 / 0.5)
    assert drift(*histograms) == pytest.approx((expected, 0.25))


def test_a_shift_is_seen_after_a_long_calm() -> None:
    draw = np.random.default_rng(2)
    histograms = ScoreHistogram(), ScoreHistogram()
    for number in range(100):
        scores = draw.normal(size=RECENT // 20).astype(np.float32)
        histograms[0].add(scores)
        histograms[1].add(scores + np.float32(3 if number >= 80 else 0))
    assert drift(*histograms)[0] > 0.25
    assert histograms[1].counts.sum() == 5 * RECENT  # Prometheus' own never forget
    assert histograms[1].recent.sum() <= RECENT


def test_too_few_scores_have_no_drift() -> None:
    few, many = ScoreHistogram(), ScoreHistogram()
    few.add(np.zeros(ENOUGH - 1, dtype=np.float32))
    many.add(np.zeros(ENOUGH, dtype=np.float32))
    assert all(math.isnan(value) for value in drift(few, many))


def test_metrics_hold_what_was_compared() -> None:
    registry = CollectorRegistry()
    metrics = ComparisonMetrics(registry)
    first, second = floats(4, 3, 2, 1), floats(0.5, 1, 0, -100)
    metrics.observe(PAIR, compare(first, second))
    metrics.observe(PAIR, compare(floats(2, 2), floats(1, 2)))  # no τ-b
    metrics.observe_guard(PAIR, "answered", "constant")
    metrics.scores_of(PAIR).answered.add(first)
    metrics.scores_of(PAIR).against.add(second)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {**LABELS, **labels})

    assert value("disranker_agreement_count", measure="concordance") == 1
    assert value("disranker_agreement_sum", measure="concordance") == pytest.approx(5 / 6)
    assert value("disranker_agreement_count", measure="rbo") == 2
    assert value("disranker_score_delta_bucket", le="1.0") == 1
    guards = {"side": "answered", "guard": "constant"}
    assert value("disranker_comparison_guards_total", **guards) == 1
    assert value("disranker_scores_bucket", side="answered", le="+Inf") == 4
    assert value("disranker_scores_bucket", side="answered", le="2.0") == 2
    assert value("disranker_scores_bucket", side="against", le="-50.0") == 1
    assert math.isnan(value("disranker_score_stability") or 0.0)
    names = {
        family.name for family in text_string_to_metric_families(generate_latest(registry).decode())
    }
    assert {"disranker_scores", "disranker_agreement", "disranker_score_distance"} <= names
