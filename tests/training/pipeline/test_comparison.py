"""Systems of several seeds on one set: figures by hand, and by the code that has one seed only."""

from __future__ import annotations

import numpy as np
import pytest

from training.compare import compare_scores
from training.evaluate import summarise
from training.figures import JudgedScores, Pooled
from training.pipeline.comparison import compare_arms, pool_seeds
from training.pipeline.recipe import FIGURES
from training.recipe import EvaluateRecipe, JudgedSet

SETS = EvaluateRecipe(sets=(JudgedSet(path="any"),))


def scores(seed: int, *, skill: float, queries: int = 30) -> list[JudgedScores]:
    """Return scores of the same queries, the nearer to the grades the greater the skill."""
    grades = np.random.default_rng(99).integers(0, 4, size=(queries, 9)).astype(float)
    noise = np.random.default_rng(seed).normal(size=grades.shape)
    names = tuple(map(str, range(9)))
    return [
        JudgedScores(f"q{place}", names, row, skill * row + error)
        for place, (row, error) in enumerate(zip(grades, noise, strict=True))
    ]


def compared(**scored: list[list[JudgedScores]]):  # type: ignore[no-untyped-def]
    return compare_arms(scored, FIGURES, baseline="base", gain="linear", relevant_from=1)


def test_a_single_seed_has_the_figures_and_the_tests_of_evaluate_and_compare() -> None:
    base, new = scores(1, skill=0.5), scores(2, skill=1.0)
    found = compared(base=[base], new=[new])
    alone = summarise(new)
    for figure in FIGURES:
        expected = getattr(alone, figure)
        assert found.measured["new"][figure].seeds == (pytest.approx(expected.value),)
        estimate = found.measured["new"][figure].estimate
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
    rows = {row.figure: row for row in compare_scores({"base": base, "new": new}, SETS)}
    for figure, title in (("ndcg_at_5", "nDCG@5"), ("pairwise_accuracy", "pairwise accuracy")):
        assert found.gaps["new"][figure].tested == rows[title].tested
        assert found.gaps["new"][figure].difference == rows[title].difference


def test_several_seeds_are_averaged_query_by_query() -> None:
    runs = [scores(seed, skill=0.7) for seed in (3, 4, 5)]
    found = compared(base=[scores(1, skill=0.5)], new=runs).measured["new"]
    each = [summarise(run) for run in runs]
    assert found["ndcg_at_10"].seeds == pytest.approx([one.ndcg_at_10.value for one in each])
    assert found["ndcg_at_10"].estimate.value == pytest.approx(
        np.mean([one.ndcg_at_10.value for one in each])
    )
    # A query's pairs are those of all seeds: 3 of 4 and 1 of 4 right make 4 of 8.
    pooled = pool_seeds([{"a": Pooled(np.full(1, right), np.full(1, 4.0))} for right in (3.0, 1.0)])
    assert pooled["a"].value == 0.5
    accuracy = found["pairwise_accuracy"].estimate
    assert found["pnr"].estimate.value == pytest.approx(accuracy.value / (1 - accuracy.value))


def test_the_difference_of_pnr_is_in_parts_of_the_baseline_s() -> None:
    found = compared(base=[scores(1, skill=0.5)], new=[scores(2, skill=1.0)])
    base, new = (found.measured[name]["pnr"].estimate.value for name in ("base", "new"))
    gap = found.gaps["new"]["pnr"]
    assert gap.difference.value == pytest.approx(new / base - 1)
    assert gap.difference.low < gap.difference.value < gap.difference.high
    assert gap.tested == found.gaps["new"]["pairwise_accuracy"].tested


def test_a_system_without_a_wrong_pair_is_infinitely_ahead_not_nan() -> None:
    found = compared(base=[scores(1, skill=0.5)], new=[scores(2, skill=99.0)])
    difference = found.gaps["new"]["pnr"].difference
    assert difference.value == difference.low == difference.high == np.inf
    rarely = [[*scores(2, skill=99.0)[:-1], scores(2, skill=0.5)[-1]]]
    difference = compared(base=[scores(1, skill=0.5)], new=rarely).gaps["new"]["pnr"].difference
    assert np.isfinite([difference.value, difference.low]).all()
    assert difference.high == np.inf


def test_holm_counts_a_test_once_though_two_figures_show_it() -> None:
    found = compared(
        base=[scores(1, skill=0.5)], new=[scores(2, skill=0.6)], other=[scores(3, skill=0.9)]
    )
    assert found.tests == 2 * 4
    smallest = min(gap.tested.p for gaps in found.gaps.values() for gap in gaps.values())
    adjusted = min(gap.p_holm for gaps in found.gaps.values() for gap in gaps.values())
    assert adjusted == pytest.approx(min(1, smallest * 8))


def test_without_the_baseline_there_are_figures_and_no_tests() -> None:
    found = compared(new=[scores(2, skill=1.0)])
    assert found.gaps == {}
    assert set(found.measured) == {"new"}
