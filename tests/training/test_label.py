"""Labels: the right scores, the same bytes however often the run was stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_checkpoint
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged, read_labels, read_source
from training.label import label, teacher_name
from training.label_plan import Plan
from training.readers.split import query_hash
from training.recipe import JudgedSet, LabelRecipe, Labels, RecipeError, load_recipe
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


def test_a_limit_takes_the_queries_of_the_least_hash(whole: Path, task: Path) -> None:
    every = read_labels(whole)
    hashes = [query_hash(example.query) for example in every]
    found = read_source(Labels(path=whole, limit=7), task)
    assert 7 <= len(found) < len(every)
    assert found == [
        example
        for example, value in zip(every, hashes, strict=True)
        if value <= sorted(hashes)[6]  # a query that is there twice is not torn apart
    ]
    assert read_source(Labels(path=whole, limit=10_000), task) == every


def test_the_summary_tells_teacher_and_scale(task: Path, whole: Path) -> None:
    summary = json.loads((whole / "labels.json").read_text(encoding="utf-8"))
    scores = [score for example in read_labels(whole) for score in example.teacher_scores or ()]
    assert (summary["queries"], summary["pairs"]) == (QUERIES, len(scores)) == (24, 144)
    assert summary["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert summary["std"] == pytest.approx(np.std(scores), rel=1e-5)
    assert teacher_name(whole) == str(task / "teacher")


def shards_there(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def kill_with(shards: int, task: Path, out: Path) -> dict[str, int]:
    """Start labelling, kill it some milliseconds after so many shards; return those and when."""
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *arguments(task, out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(shards_there(out / "toy-labels")) < shards:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.005))  # any moment will do: scoring, writing, renaming
    finally:
        process.kill()
        process.wait()
    return shards_there(out / "toy-labels")


def test_a_killed_run_loses_and_repeats_nothing(task: Path, whole: Path) -> None:
    out = task / "killed"
    folder = out / "toy-labels"
    done: dict[str, int] = {}
    for shards in (1, 3):
        found = kill_with(shards, task, out)
        assert done.items() <= found.items()  # written once
        done = found
    (folder / "part-00001.parquet").unlink(missing_ok=True)
    (folder / "part-00005.tmp").write_bytes(b"half a shard")
    (folder / "part-00005.parquet").unlink(missing_ok=True)
    (folder / "labels.json").unlink(missing_ok=True)
    assert main(arguments(task, out)) == 0
    assert contents(folder) == contents(whole)
    kept = {name: written for name, written in done.items() if name[-9] not in "15"}
    assert kept.items() <= shards_there(folder).items()


def copied(source: Path, target: Path) -> Path:
    """Copy a label folder and return the copy."""
    target.mkdir()
    for name, content in contents(source).items():
        (target / name).write_bytes(content)
    return target


def test_only_missing_shards_are_scored_again(task: Path, whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "toy-labels")
    marked = folder / "part-00001.parquet"
    table = pq.read_table(marked)
    zeros = pa.array([[0.0] * 6] * 4, pa.list_(pa.float32()))
    pq.write_table(table.set_column(4, table.schema.field(4), zeros), marked)
    before = marked.read_bytes()
    (folder / "part-00003.parquet").unlink()
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    label(recipe, data=task, out=tmp_path)
    assert marked.read_bytes() == before  # left as it was
    assert (folder / "part-00003.parquet").read_bytes() == contents(whole)["part-00003.parquet"]
    label(recipe, data=task, out=tmp_path, restart=True)
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("foreign", ["another shard", "no shard"])
def test_a_shard_of_other_data_is_refused(
    foreign: str, task: Path, whole: Path, tmp_path: Path
) -> None:
    folder = copied(whole, tmp_path / "toy-labels")
    content = contents(whole)["part-00002.parquet"] if foreign == "another shard" else b"PAR1"
    (folder / "part-00001.parquet").write_bytes(content)
    before = contents(folder)
    message = r"part-00001\.parquet(: no shard of labels| was made from other data)"
    with pytest.raises(RecipeError, match=message):
        label(load_recipe(task / "recipe.toml", LabelRecipe), data=task, out=tmp_path)
    assert contents(folder) == before


def test_data_that_changes_while_it_is_labelled_is_noticed() -> None:
    examples = [RankingExample(str(n), "kettle", (Candidate("a", "", "pot"),)) for n in range(5)]
    recipe = LabelRecipe.model_validate(
        {"name": "x", "queries_per_shard": 2, "sources": [{"kind": "judged", "path": "toy"}]}
    )
    plan = Plan.of(recipe, (examples[:3], examples[3:]))
    assert plan.sizes == (2, 2, 1)
    assert [found.number for found in plan.inputs((examples,), {0, 2})] == [0, 2]
    for changed in (examples[:4], [*examples, examples[0]], examples[::-1]):
        with pytest.raises(RecipeError, match="the data changed"):
            list(plan.inputs((changed,), {0, 1, 2}))


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
    with pytest.raises(RecipeError, match="holds labels of another recipe, teacher or other data"):
        label(other, data=task, out=whole.parent)
    assert contents(whole) == before


def test_labels_of_a_teacher_that_was_trained_anew_are_refused(task: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(task / "teacher", tmp_path / "teacher")
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    recipe = recipe.model_copy(update={"teacher": str(teacher)})
    before = contents(folder := label(recipe, data=task, out=tmp_path / "out"))
    weights = load_file(teacher / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, teacher / "model.safetensors")
    with pytest.raises(RecipeError, match="another recipe, teacher or other data"):
        label(recipe, data=task, out=tmp_path / "out")
    assert contents(folder) == before


def test_labels_of_other_data_are_refused(task: Path, whole: Path, tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=QUERIES - 1)
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    with pytest.raises(RecipeError, match="another recipe, teacher or other data"):
        label(recipe, data=tmp_path, out=whole.parent)


def test_labels_of_other_grades_are_refused(task: Path, whole: Path, tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=QUERIES)
    qrels = tmp_path / "toy" / "qrels.tsv"
    qrels.write_text(qrels.read_text(encoding="utf-8").replace("\t1\n", "\t2\n"), encoding="utf-8")
    recipe = load_recipe(task / "recipe.toml", LabelRecipe)
    with pytest.raises(RecipeError, match="another recipe, teacher or other data"):
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
    assert not (tmp_path / recipe.name).exists()
