"""Labelling: a teacher's scores over many queries, in resumable Parquet shards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from service.contract.types import Float32s, RankingExample
from training.data import read_source, sha256_of
from training.elsewhere import RankingsFile, RemoteTeacher, ScoresFile
from training.recipe import LabelRecipe, RecipeError
from training.teacher import Teacher, load_teacher

PLAN = "plan.json"
DONE = "labels.json"

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        (
            "candidates",
            pa.list_(
                pa.struct([("id", pa.string()), ("title", pa.string()), ("summary", pa.string())])
            ),
        ),
        ("grades", pa.list_(pa.float32())),
        ("teacher_scores", pa.list_(pa.float32())),
    ]
)


def label(recipe: LabelRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Score the recipe's sources with its teacher and return the folder of shards.

    Shards are written aside and renamed, so one that is there is whole; a run that was stopped
    goes on with the first missing one. `labels.json` appears last.

    Args:
        recipe: Teacher and sources.
        data: Folder of the sets the recipe names.
        out: Folder of runs; the labels go to `out/<recipe name>`.
        restart: Throw earlier labels of this name away.

    Raises:
        RecipeError: A source or the teacher cannot be used, or the folder holds other labels.
    """
    folder = out / recipe.name
    examples = [example for source in recipe.sources for example in read_source(source, data)]
    size = recipe.queries_per_shard
    shards = [examples[start : start + size] for start in range(0, len(examples), size)]
    todo = [
        number for number in range(len(shards)) if restart or not _shard(folder, number).exists()
    ]
    if todo:
        teacher = teacher_of(recipe)
    if restart:  # all inputs were read: none can fail any more
        shutil.rmtree(folder, ignore_errors=True)
    _check_plan(folder, _fingerprint(recipe, examples))
    with tqdm(total=len(examples), unit="query") as bar:
        bar.update(len(examples) - sum(len(shards[number]) for number in todo))
        for number in todo:
            scores = teacher.score(shards[number])
            _write_shard(_shard(folder, number), shards[number], scores)
            bar.update(len(shards[number]))
    _write_json(folder / DONE, _summary(recipe, folder, len(shards)))
    return folder


def teacher_of(recipe: LabelRecipe) -> Teacher:
    """Return the recipe's teacher.

    Raises:
        RecipeError: It cannot be loaded or read.
    """
    if recipe.remote is not None:
        return RemoteTeacher(recipe.teacher, recipe.remote)
    if recipe.teacher_kind == "scores":
        return ScoresFile(Path(recipe.teacher))
    if recipe.teacher_kind == "rankings":
        return RankingsFile(Path(recipe.teacher))
    return load_teacher(recipe)


def teacher_name(folder: Path) -> str:
    """Return the name of the teacher that scored a label folder.

    Raises:
        RecipeError: The folder is no finished label folder.
    """
    try:
        return str(json.loads((folder / DONE).read_text(encoding="utf-8"))["teacher"])
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{folder}: no finished labels here: {error}") from None


def _check_plan(folder: Path, fingerprint: str) -> None:
    """Write down what the folder is being filled with, or refuse to mix two plans."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / PLAN
    if not plan.exists():
        _write_json(plan, {"fingerprint": fingerprint})
    elif json.loads(plan.read_text(encoding="utf-8"))["fingerprint"] != fingerprint:
        raise RecipeError(
            f"{folder} holds labels of another recipe or other data; "
            "give the recipe a new name, or start over with --restart"
        )


def _write_shard(path: Path, examples: Sequence[RankingExample], scores: list[Float32s]) -> None:
    for example, values in zip(examples, scores, strict=True):
        if not np.isfinite(values).all():
            raise RecipeError(f"query {example.query_id!r}: the teacher's scores are not finite")
    rows = [
        {
            "query_id": example.query_id,
            "query": example.query,
            "candidates": [asdict(candidate) for candidate in example.candidates],
            "grades": example.grades,
            "teacher_scores": values.tolist(),
        }
        for example, values in zip(examples, scores, strict=True)
    ]
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def _summary(recipe: LabelRecipe, folder: Path, shards: int) -> dict[str, object]:
    tables = [
        pq.read_table(_shard(folder, number), columns=["teacher_scores"])
        for number in range(shards)
    ]
    values = np.concatenate(
        [np.concatenate(table["teacher_scores"].to_pylist()) for table in tables]
    )
    return {
        "teacher": recipe.teacher,
        "recipe": recipe.model_dump(mode="json"),
        "queries": sum(table.num_rows for table in tables),
        "pairs": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "shards": {
            _shard(folder, number).name: sha256_of(_shard(folder, number))
            for number in range(shards)
        },
    }


def _fingerprint(recipe: LabelRecipe, examples: Sequence[RankingExample]) -> str:
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    if recipe.teacher_kind in ("scores", "rankings"):
        try:
            digest.update(Path(recipe.teacher).read_bytes())
        except OSError as error:
            raise RecipeError(f"{recipe.teacher}: {error.strerror}") from None
    for example in examples:
        digest.update(repr(example).encode())
    return digest.hexdigest()


def _shard(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.parquet"


def _write_json(path: Path, fields: dict[str, object]) -> None:
    scratch = path.with_suffix(".tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(fields, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
