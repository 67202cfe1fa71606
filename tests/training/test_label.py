"""Labels: the right scores, the same bytes however often the run was stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_checkpoint
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged, read_labels
from training.label import label, teacher_name
from training.recipe import JudgedSet, LabelRecipe, RecipeError, load_recipe
from training.teacher import load_teacher

QUERIES = 24

RECIPE = """
name = "toy-labels"
teacher = "{teacher}"
teacher_kind = "{kind}"
max_length = 32
queries_per_shard = 4

[[sources]]
kind = "judged"
path = "toy"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_toy_set(folder, queries=QUERIES)
    tiny_checkpoint(folder / "teacher")
    text = RECIPE.format(teacher=folder / "teacher", kind="cross-encoder")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(task: Path) -> Path:
    """Return the label folder of an uninterrupted run."""
    return label(load_recipe(task / "recipe.toml", LabelRecipe), data=task, out=task / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arguments(task: Path, out: Path) -> list[str]:
    return ["label", str(task / "recipe.toml"), "--data", str(task), "--out", str(out)]


def test_labels_are_read_back_with_the_teachers_scores(task: Path, whole: Path) -> None:
    teacher = load_teacher(load_recipe(task / "recipe.toml", LabelRecipe))
    judged = read_judged(JudgedSet(path="toy"), task)
    labelled = read_labels(whole)
    assert [
        (example.query_id, example.query, example.candidates, example.grades)
        for example in labelled
    ] == [
        (example.query_id, example.query, example.candidates, example.grades) for example in judged
    ]
    for example, scores in zip(labelled, teacher.score(judged), strict=True):
        np.testing.assert_allclose(example.teacher_scores or (), scores, rtol=1e-4)


def test_the_summary_tells_teacher_and_scale(task: Path, whole: Path) -> None:
    summary = json.loads((whole / "labels.json").read_text(encoding="utf-8"))
    scores = [score for example in read_labels(whole) for score in example.teacher_scores or ()]
    assert (summary["queries"], summary["pairs"]) == (QUERIES, len(scores)) == (24, 144)
    assert summary["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert summary["std"] == pytest.approx(np.std(scores), rel=1e-5)
    assert teacher_name(whole) == str(task / "teacher")


def test_a_killed_run_goes_on_to_the_same_bytes(task: Path, whole: Path) -> None:
    out = task / "killed"
    folder = out / "toy-labels"
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments(task, out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("part-*.parquet"))) < 2:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    (folder / "part-00000.parquet").unlink()
    (folder / "part-00005.tmp").write_bytes(b"half a shard")
    (folder / "part-00005.parquet").unlink(missing_ok=True)
    (folder / "labels.json").unlink(missing_ok=True)
    assert main(arguments(task, out)) == 0
    assert contents(folder) == contents(whole)


def test_only_missing_shards_are_scored_again(task: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "toy-labels"
    folder.mkdir()
    for name, content in contents(whole).items():
        (folder / name).write_bytes(content)
    marked = folder / "part-00001.parquet"
    marked.write_bytes((whole / "part-00002.parquet").read_bytes())
    (folder / "part-00003.parquet").unlink()
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    label(recipe, data=task, out=tmp_path)
    assert marked.read_bytes() == (whole / "part-00002.parquet").read_bytes()  # left as it was
    assert (folder / "part-00003.parquet").read_bytes() == contents(whole)["part-00003.parquet"]
    label(recipe, data=task, out=tmp_path, restart=True)
    assert contents(folder) == contents(whole)


def test_unfinished_labels_are_no_labels(task: Path, whole: Path, tmp_path: Path) -> None:
    for name, content in contents(whole).items():
        if name != "labels.json":
            (tmp_path / name).write_bytes(content)
    for read in (read_labels, teacher_name):
        with pytest.raises(RecipeError, match="no finished labels here"):
            read(tmp_path)


def test_a_lost_shard_is_noticed(whole: Path, tmp_path: Path) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "part-00004.parquet").unlink()
    with pytest.raises(RecipeError, match=r"part-00004\.parquet: lost or changed"):
        read_labels(tmp_path)


def test_a_changed_shard_is_noticed(whole: Path, tmp_path: Path) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "part-00004.parquet").write_bytes(contents(whole)["part-00003.parquet"])
    with pytest.raises(RecipeError, match=r"part-00004\.parquet: lost or changed"):
        read_labels(tmp_path)


def test_a_teacher_that_cannot_be_loaded_writes_nothing(task: Path, tmp_path: Path) -> None:
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    broken = recipe.model_copy(update={"teacher": str(tmp_path / "absent")})
    with pytest.raises(RecipeError, match="cannot be loaded"):
        label(broken, data=task, out=tmp_path)
    assert not (tmp_path / recipe.name).exists()


@pytest.mark.parametrize("mistake", ["data", "teacher"])
def test_restart_with_a_wrong_input_keeps_the_old_labels(
    mistake: str, task: Path, whole: Path, tmp_path: Path
) -> None:
    before = contents(whole)
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    if mistake == "teacher":
        recipe = recipe.model_copy(update={"teacher": str(tmp_path / "absent")})
    data = tmp_path if mistake == "data" else task
    with pytest.raises(RecipeError, match=r"is --data right|cannot be loaded"):
        label(recipe, data=data, out=whole.parent, restart=True)
    assert contents(whole) == before


def test_a_folder_of_other_labels_is_refused(
    task: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(whole)
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    other = recipe.model_copy(update={"max_length": 16})
    with pytest.raises(RecipeError, match="holds labels of another recipe or other data"):
        label(other, data=task, out=whole.parent)
    assert contents(whole) == before


def test_labels_of_other_data_are_refused(task: Path, whole: Path, tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=QUERIES - 1)
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    with pytest.raises(RecipeError, match="another recipe or other data"):
        label(recipe, data=tmp_path, out=whole.parent)


def test_labels_of_other_grades_are_refused(task: Path, whole: Path, tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=QUERIES)
    qrels = tmp_path / "toy" / "qrels.tsv"
    qrels.write_text(qrels.read_text(encoding="utf-8").replace("\t1\n", "\t2\n"), encoding="utf-8")
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    with pytest.raises(RecipeError, match="another recipe or other data"):
        label(recipe, data=tmp_path, out=whole.parent)


def test_scores_that_are_not_finite_are_refused(task: Path, tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification, BertTokenizerFast

    model = BertForSequenceClassification.from_pretrained(task / "teacher")
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    model.save_pretrained(tmp_path / "teacher")
    BertTokenizerFast.from_pretrained(task / "teacher").save_pretrained(tmp_path / "teacher")
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    broken = recipe.model_copy(update={"teacher": str(tmp_path / "teacher")})
    with pytest.raises(RecipeError, match="query 'q0': the teacher's scores are not finite"):
        label(broken, data=task, out=tmp_path)
    assert [path.name for path in (tmp_path / recipe.name).iterdir()] == ["plan.json"]
