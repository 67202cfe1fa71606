"""Score reports: calibration by hand, and a whole report of two bundles and a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_bundle
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.calibration import cross_fitted, reliability
from training.distributions import common_pairs, likenesses
from training.figures import JudgedScores
from training.recipe import RecipeError


def test_reliability_by_hand() -> None:
    probabilities = np.array([0.05, 0.0, 0.31, 0.39, 0.35, 1.0, 0.9])
    relevant = np.array([False, True, True, False, False, True, True])
    found = reliability(probabilities, relevant)
    assert [(part.low, part.pairs) for part in found.bins] == [(0.0, 2), (0.3, 3), (0.9, 2)]
    assert found.bins[1].mean_probability == pytest.approx(0.35)
    assert found.bins[1].relevant_share == pytest.approx(1 / 3)
    gaps = 2 * abs(0.025 - 0.5) + 3 * abs(0.35 - 1 / 3) + 2 * abs(0.95 - 1)
    assert found.ece == pytest.approx(gaps / 7)


def test_nothing_has_no_calibration() -> None:
    assert math.isnan(reliability(np.array([]), np.array([], dtype=bool)).ece)


def test_fitted_probabilities_are_calibrated_where_the_scores_are_logits() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=6000) * 2 - 1
    relevant = rng.random(6000) < 1 / (1 + np.exp(-scores))
    queries = [f"query {number // 3}" for number in range(6000)]
    assert reliability(cross_fitted(scores * 7 + 3, relevant, queries), relevant).ece < 0.03
    shifted = 1 / (1 + np.exp(-(scores + 2)))
    assert reliability(shifted, relevant).ece > 0.2


def test_a_fit_never_sees_the_pairs_own_query() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=40)
    relevant = scores + rng.normal(size=40) > 0
    queries = [f"q{number // 4}" for number in range(40)]
    before = cross_fitted(scores, relevant, queries)
    relevant[:4] = ~relevant[:4]
    after = cross_fitted(scores, relevant, queries)
    assert (after[:4] == before[:4]).all()
    assert (after[4:] != before[4:]).any()


def judged(names: str, scores: list[float]) -> JudgedScores:
    grades = np.array([float(name in "ab") for name in names])
    return JudgedScores("q", tuple(names), grades, np.array(scores))


def test_only_pairs_that_all_have_scored_are_compared() -> None:
    pairs = common_pairs(
        {
            "one": [judged("abc", [3, 2, 1]), judged("ab", [1, 0])],
            "two": [judged("cbz", [5, 6, 7]), judged("", [])],
        }
    )
    assert pairs.scores["one"].tolist() == [2, 1]
    assert pairs.scores["two"].tolist() == [6, 5]
    assert pairs.grades.tolist() == [1, 0]
    assert pairs.left_out == 4
    (found,) = likenesses(pairs)
    assert (found.tau_b, found.top_10, found.ks, found.ks_standardised) == (1.0, 1.0, 1.0, 0.0)
    with pytest.raises(RecipeError, match="no pair is scored by all"):
        common_pairs({"one": [judged("a", [1])], "two": [judged("b", [1])]})


def test_a_report_is_written_whole_and_replaced(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=6)
    sets = tmp_path / "sets.toml"
    sets.write_text('[[sets]]\npath = "toy"\n', encoding="utf-8")
    for seed, name in enumerate(("one", "two")):
        tiny_bundle(tmp_path / name, name=name, seed=seed, precisions=("fp32",))
    arguments = ["scores", str(sets), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    models = ["--model", str(tmp_path / "one"), "--model", str(tmp_path / "two")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").touch()
    assert main([*arguments, *models]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["calibration-1.png", "report.md", "scores-1.png"]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "36 pairs of 6 queries; 0 pairs left out" in text
    for row in ("| one fp32 / two fp32 |", "| one fp32, fitted |", "| two fp32, as served |"):
        assert row in text
    with Image.open(tmp_path / "out" / "scores-1.png") as image:
        assert image.size == (960, 480)
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 2
    assert main([*arguments, "--model", str(tmp_path / "missing")]) == 2
    assert (tmp_path / "out" / "report.md").exists()
