"""A distillation that is killed and started again is the uninterrupted one, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.training.kill import contents, kill_after, saved_step
from tests.training.toy import write_recipe, write_toy_set
from training.distill import distill
from training.recipe import DistillRecipe, load_recipe


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_toy_set(folder, queries=32)
    write_recipe(folder, epochs=14, evaluate_every=9, save_every=2)
    return folder


@pytest.fixture(scope="module")
def whole(task: Path) -> Path:
    """Return the checkpoint of an uninterrupted run."""
    return distill(
        load_recipe(task / "recipe.toml", DistillRecipe), data=task, out=task / "uninterrupted"
    )


def test_a_run_killed_again_and_again_ends_as_the_uninterrupted_one(
    task: Path, whole: Path
) -> None:
    out = task / "killed"
    for step in (2, random.randint(8, 26)):
        kill_after(step, "distill", task / "recipe.toml", task, out / "toy")
        assert saved_step(out / "toy") < 42
    recipe = load_recipe(task / "recipe.toml", DistillRecipe)
    assert contents(distill(recipe, data=task, out=out)) == contents(whole)
    assert contents(out / "toy" / "state") == contents(whole.parent / "state")
    assert sorted(path.name for path in (out / "toy").iterdir()) == ["checkpoint", "state"]


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(
    task: Path, whole: Path
) -> None:
    recipe = load_recipe(task / "recipe.toml", DistillRecipe)
    folder = task / "uninterrupted" / "toy"
    before = contents(whole)
    for name in ("checkpoint", "state"):
        (folder / name).rename(folder / f".{name}.old")
        (folder / f".{name}.new").mkdir()
    assert contents(distill(recipe, data=task, out=task / "uninterrupted")) == before
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "state"]
