"""Labels made on a real local Ray cluster: killed, resumed, and the bytes of local ones.

Ray listens on all addresses, so it is run in a network and process namespace of its own.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import tiny_checkpoint
from tests.training.kill import ENVIRONMENT, contents
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.label import label
from training.ray_label import Pool, Reader, Scorer, score_on_ray
from training.recipe import JudgedSet, LabelRecipe, RecipeError, load_recipe
from training.shards import Inputs, cut

ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
UP = 'ip link set lo up && exec "$@"'
PATIENCE_S = 300

RECIPE = """
name = "toy-labels"
teacher = "{teacher}"
teacher_kind = "cross-encoder"
max_length = 32
queries_per_shard = 1

[[sources]]
kind = "judged"
path = "toy"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_toy_set(folder, queries=40)
    tiny_checkpoint(folder / "teacher")
    text = RECIPE.format(teacher=folder / "teacher")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Return a folder of Ray's own: its sockets' paths have to be short."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed; it comes with the [ray] extra")
    command = (*ALONE, "sh", "-c", UP, "sh", "true")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no namespace can be made to keep Ray's ports in")
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(task: Path, out: Path, ray_folder: Path) -> subprocess.Popen[bytes]:
    stage = ("-m", "training", "label", str(task / "recipe.toml"), "--data", str(task))
    pool = ("--out", str(out), "--ray", "--actors", "2")
    return subprocess.Popen(
        (*ALONE, "sh", "-c", UP, "sh", sys.executable, *stage, *pool),
        env={**ENVIRONMENT, "RAY_TMPDIR": str(ray_folder)},
        stdout=subprocess.DEVNULL,
        stderr=(out.parent / "stderr").open("ab"),
    )


def shards_there(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


@pytest.mark.real_part
def test_a_killed_cluster_goes_on_to_the_local_bytes(
    task: Path, tmp_path: Path, ray_folder: Path
) -> None:
    whole = label(load_recipe(task / "recipe.toml", LabelRecipe), data=task, out=task / "whole")
    folder = tmp_path / "out" / "toy-labels"
    killed = start(task, tmp_path / "out", ray_folder)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not shards_there(folder):
            assert killed.poll() is None, (tmp_path / "stderr").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        killed.kill()
        killed.wait()
    (folder / "labels.json").unlink(missing_ok=True)
    lost = sorted(shards_there(folder))[-1]
    (folder / lost).unlink()  # however quick it was, something is left to do
    done = shards_there(folder)
    resumed = start(task, tmp_path / "out", ray_folder)
    assert resumed.wait(PATIENCE_S) == 0, (tmp_path / "stderr").read_text(encoding="utf-8")
    assert contents(folder) == contents(whole)
    assert done.items() <= shards_there(folder).items()  # written once
    assert json.loads((folder / "labels.json").read_text(encoding="utf-8"))["queries"] == 40


def test_workers_tell_problems_in_rows(task: Path, tmp_path: Path) -> None:
    def shards() -> Iterator[Inputs]:
        yield from cut(read_judged(JudgedSet(path="toy"), task), 40)
        raise RecipeError("the data changed")

    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    whole, problem = Reader(shards, Path.cwd())({})
    done = Scorer(recipe)(whole)
    assert (done["number"], done["problem"]) == ([0], [""])
    assert Scorer(recipe)(problem)["problem"] == ["the data changed"]
    absent = recipe.model_copy(update={"teacher": str(tmp_path / "absent")})
    assert "cannot be loaded" in Scorer(absent)(whole)["problem"][0]


def test_actors_without_ray_are_refused(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["label", str(task / "recipe.toml"), "--data", str(task), "--actors", "2"]
    assert main(arguments) == 2
    assert "--actors and --gpus-per-actor are for --ray" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is here")
def test_a_missing_ray_is_named(task: Path) -> None:
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    with pytest.raises(RecipeError, match=r"ray is not installed; it comes with the \[ray\] extra"):
        next(score_on_ray(recipe, lambda: iter(()), Pool()))
