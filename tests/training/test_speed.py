"""Speeds beside a bare loop: what is counted; how fast is for people to see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tiny import tiny_checkpoint
from tests.training.toy import write_recipe, write_toy_set
from training.__main__ import main
from training.speed import Speed

LABELS = """
name = "toy-labels"
teacher = "{teacher}"
teacher_kind = "{kind}"
queries_per_shard = 4

[[sources]]
kind = "judged"
path = "toy"
"""
SHOWN = re.compile(
    r"[\d.]+% of the bare loop's speed \[.*\], 3 rounds in turns; padding [\d.]+% of [\d,]+ tokens"
)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_toy_set(folder, queries=12)
    tiny_checkpoint(folder / "teacher")
    return folder


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder"])
def test_labelling_is_timed_in_turns(
    kind: str, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(LABELS.format(teacher=task / "teacher", kind=kind), encoding="utf-8")
    arguments = ["speed", "label", str(recipe), "--data", str(task), "--rounds", "3"]
    assert main(arguments) == 0
    assert SHOWN.search(capsys.readouterr().out)


def test_distilling_is_timed_step_by_step(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    arguments = ["speed", "distill", str(recipe), "--data", str(task), "--rounds", "3"]
    assert main(arguments) == 0
    assert SHOWN.search(capsys.readouterr().out)


def test_a_teacher_elsewhere_has_no_bare_loop(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores"
    scores.write_text("q0\td\t1\n", encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(LABELS.format(teacher=scores, kind="scores"), encoding="utf-8")
    assert main(["speed", "label", str(recipe), "--data", str(task)]) == 2
    assert "no model of this process" in capsys.readouterr().err


def test_figures_by_hand() -> None:
    speed = Speed((2.0, 4.0, 2.0), (1.8, 3.6, 1.8), 900, 1000)
    assert str(speed) == (
        "90.0% of the bare loop's speed [90.0%, 90.0%], 3 rounds in turns; "
        "padding 10.0% of 1,000 tokens; 112 tokens/s without it"
    )
