"""ΔGSB, from judgements and from grades, against values computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from training.__main__ import main
from training.figures import JudgedScores
from training.judgements import Gsb, count_judgements, judge_by_grades, read_judgements
from training.recipe import RecipeError


def write(path: Path, *rows: tuple[str, str, str, str]) -> Path:
    names = ("query_id", "left", "right", "verdict")
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_the_papers_counts_give_twelve_percent_and_their_exact_p() -> None:
    found = Gsb(good=54, same=116, bad=30)
    assert found.delta == pytest.approx(0.12)
    assert found.p == pytest.approx(0.0116, abs=5e-5)  # the paper prints .002
    assert found.p == pytest.approx(binomtest(54, 84).pvalue)
    assert str(found) == "+12.0% (54 : 116 : 30)"


def test_only_same_verdicts_say_nothing() -> None:
    assert Gsb(0, 9, 0).delta == 0.0
    assert Gsb(0, 9, 0).p == 1.0
    assert math.isnan(Gsb(0, 0, 0).delta)


def test_a_verdict_counts_for_the_system_not_for_the_side(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        ("1", "new", "old", "left"),
        ("2", "old", "new", "right"),
        ("3", "old", "new", "left"),
        ("4", "old", "new", "same"),
        ("5", "new", "other", "right"),
    )
    assert count_judgements(read_judgements(path)) == {
        ("new", "old"): Gsb(2, 1, 1),
        ("new", "other"): Gsb(0, 0, 1),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a judgement"),
        ("[1]", "not a judgement"),
        ('{"query_id": "1", "left": "a", "right": "b", "verdict": "tie"}', "verdict: "),
        ('{"query_id": "1", "left": "a", "right": "b"}', "verdict: Field required"),
        ('{"query_id": "1", "left": "a", "right": "a", "verdict": "same"}', "with itself"),
    ],
)
def test_a_bad_judgement_is_named_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", ("1", "a", "b", "left"))
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(RecipeError) as caught:
        read_judgements(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


def judged(grades: list[float], scores: list[float]) -> JudgedScores:
    names = tuple(f"d{place}" for place in range(len(grades)))
    return JudgedScores("q", names, np.array(grades), np.array(scores))


def test_grades_judge_by_the_gain_of_the_top() -> None:
    grades = [3.0, 1.0, 1.0, -2.0]
    best, swapped, worst = [4.0, 3, 2, 1], [3.0, 4, 2, 1], [1.0, 2, 3, 4]
    system = [judged(grades, order) for order in (best, best, worst, best)]
    other = [judged(grades, order) for order in (worst, swapped, best, best)]
    # Top 2 by grade: 4 against 1 good; the same two documents: same; 1 against 4 bad; same.
    assert judge_by_grades(system, other, k=2) == Gsb(1, 2, 1)
    assert judge_by_grades(system, other, k=1) == Gsb(2, 1, 1)


def test_judgements_alone_can_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("q", "student", "base", verdict) for verdict in ["left"] * 54 + ["right"] * 30]
    path = write(tmp_path / "x.jsonl", *rows, *[("q", "base", "student", "same")] * 116)
    assert main(["compare", "--judgements", str(path)]) == 0
    row = "| student | base | +12.0% (54 : 116 : 30) | 0.0116 | 0.0116 |"
    assert row in capsys.readouterr().out
