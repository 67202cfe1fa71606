"""Labelling: a teacher's scores over many queries, in resumable Parquet shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from training.data import open_source
from training.hashing import sha256_of
from training.label_plan import Plan
from training.ray_label import Pool, score_on_ray
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
from training.teacher import Teacher, teacher_of

DONE = "labels.json"


def label(
    recipe: LabelRecipe, *, data: Path, out: Path, restart: bool = False, pool: Pool | None = None
) -> Path:
    """Score the recipe's sources with its teacher and return the folder of shards.

    The sources are gone through twice, so that all is known to be readable before anything is
    scored; files of examples and of labels are never in memory as a whole. Shards are written
    aside and renamed, so one that is there is whole; a run that was stopped goes on with the
    missing ones, here or on Ray. `labels.json` appears last.

    Args:
        recipe: Teacher and sources.
        data: Folder of the sets the recipe names.
        out: Folder of runs; the labels go to `out/<recipe name>`.
        restart: Throw earlier labels of this name away.
        pool: Teachers on a Ray cluster; None: one in this process.

    Raises:
        RecipeError: A source or the teacher cannot be used, or the folder holds other labels.
    """
    folder = out / recipe.name
    sources = tuple(open_source(source, data.absolute()) for source in recipe.sources)
    plan = Plan.of(recipe, sources)
    if not restart:
        plan.check(folder)
    todo = set(range(len(plan.sizes)) if restart else plan.missing(folder))
    inputs = partial(plan.inputs, sources, todo)
    scored = score_on_ray(recipe, inputs, pool) if pool else score_here(recipe, inputs)
    with tqdm(total=sum(plan.sizes), unit="query") as bar, closing(scored):
        bar.update(sum(size for n, size in enumerate(plan.sizes) if n not in todo))
        for place, (number, content) in enumerate(scored if todo else ()):
            if restart and place == 0:  # inputs can be read, the teacher scores: they may go
                shutil.rmtree(folder, ignore_errors=True)
            if place == 0:
                plan.write(folder)
            write_whole(shard_path(folder, number), content)
            bar.update(plan.sizes[number])
    write_json(folder / DONE, _summary(recipe, folder, len(plan.digests)))
    return folder


def score_here(
    recipe: LabelRecipe, shards: Callable[[], Iterator[Inputs]]
) -> Generator[tuple[int, bytes]]:
    """Yield each shard's number and file, in their order."""
    yield from score_shards(teacher_of(recipe), shards())


def score_shards(teacher: Teacher, shards: Iterable[Inputs]) -> Iterator[tuple[int, bytes]]:
    """Yield each shard's number and file.

    Raises:
        RecipeError: The teacher fails, or a score of it is not finite.
    """
    for inputs in shards:
        yield inputs.number, encode_shard(inputs, teacher.score(inputs.examples))


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
