"""A distillation that is killed and started again is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.toy import write_recipe, write_toy_set
from training.distill import distill
from training.recipe import DistillRecipe, load_recipe

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PATIENCE_S = 120


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


def start(task: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training", "distill", str(task / "recipe.toml")]
    return subprocess.Popen(
        [*command, "--data", str(task), "--out", str(out)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def saved_step(folder: Path) -> int:
    """Return the step of the run's saved state, -1 where there is none at this moment."""
    try:
        step: int = json.loads((folder / "state" / "state.json").read_text())["step"]
    except (OSError, ValueError):
        return -1
    return step


def kill_after(step: int, task: Path, out: Path) -> None:
    """Start the run, wait for a state of that step, and kill it some milliseconds later."""
    process = start(task, out)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while saved_step(out / "toy") < step:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))  # any moment will do: saving, evaluating, a step
    finally:
        process.kill()
        process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_killed_again_and_again_ends_as_the_uninterrupted_one(
    task: Path, whole: Path
) -> None:
    out = task / "killed"
    for step in (2, random.randint(8, 26)):
        kill_after(step, task, out)
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
