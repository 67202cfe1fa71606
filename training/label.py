"""Labelling: a teacher's scores over many queries, in resumable Parquet shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from training.data import open_source, sha256_of
from training.elsewhere import RankingsFile, RemoteTeacher, ScoresFile
from training.label_plan import Plan
from training.recipe import LabelRecipe, RecipeError
from training.shards import (
    Inputs,
    encode_shard,
    facts_of,
    shard_path,
    together,
    write_json,
    write_whole,
)
from training.teacher import Teacher, load_teacher

DONE = "labels.json"


def label(recipe: LabelRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Score the recipe's sources with its teacher and return the folder of shards.

    The sources are gone through twice, so that all is known to be readable before anything is
    scored; files of examples and of labels are never in memory as a whole. Shards are written
    aside and renamed, so one that is there is whole; a run that was stopped goes on with the
    missing ones. `labels.json` appears last.

    Args:
        recipe: Teacher and sources.
        data: Folder of the sets the recipe names.
        out: Folder of runs; the labels go to `out/<recipe name>`.
        restart: Throw earlier labels of this name away.

    Raises:
        RecipeError: A source or the teacher cannot be used, or the folder holds other labels.
    """
    folder = out / recipe.name
    sources = tuple(open_source(source, data) for source in recipe.sources)
    plan = Plan.of(recipe, sources)
    if restart or plan.missing(folder):
        teacher = teacher_of(recipe)
    if restart:  # all inputs were read: none can fail any more
        shutil.rmtree(folder, ignore_errors=True)
    plan.check(folder)
    todo = set(plan.missing(folder))
    if todo:
        scored = score_shards(teacher, plan.inputs(sources, todo))
        with tqdm(total=sum(plan.sizes), unit="query") as bar:
            bar.update(sum(size for n, size in enumerate(plan.sizes) if n not in todo))
            for number, content in scored:
                write_whole(shard_path(folder, number), content)
                bar.update(plan.sizes[number])
    write_json(folder / DONE, _summary(recipe, folder, len(plan.digests)))
    return folder


def score_shards(teacher: Teacher, shards: Iterable[Inputs]) -> Iterator[tuple[int, bytes]]:
    """Yield each shard's number and file.

    Raises:
        RecipeError: The teacher fails, or a score of it is not finite.
    """
    for inputs in shards:
        yield inputs.number, encode_shard(inputs, teacher.score(inputs.examples))


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


def _summary(recipe: LabelRecipe, folder: Path, shards: int) -> dict[str, object]:
    paths = [shard_path(folder, number) for number in range(shards)]
    whole = together(facts_of(path) for path in paths)
    return {
        "teacher": recipe.teacher,
        "recipe": recipe.model_dump(mode="json"),
        "queries": whole.queries,
        "pairs": whole.pairs,
        "mean": whole.mean,
        "std": whole.std,
        "shards": {path.name: sha256_of(path) for path in paths},
    }
