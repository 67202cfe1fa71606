"""Selection: of each query's candidates, those that a pre-ranker puts first, and last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.contract.examples import write_examples
from service.contract.order import rank_order
from service.contract.types import Float32s, RankingExample
from training.data import EXAMPLES, open_source
from training.recipe import LabelRecipe, RecipeError
from training.rradistill.recipes import SelectRecipe
from training.shards import cut, write_json
from training.teacher import Teacher, load_teacher

DONE = "selected.json"
QUERIES_A_CALL = 64


def select(recipe: SelectRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Write each query's first and last candidates to `out/<recipe name>` and return the folder.

    They are in the pre-ranker's order; `kind = "retrieved"` reads the folder. Nothing is done anew
    where the recipe's selection is there.

    Args:
        recipe: Sources and pre-ranker.
        data: Folder of the sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier selection of this name away.

    Raises:
        RecipeError: An input cannot be read, or the folder holds another recipe's selection.

    Source:
        RRADistill (Choi et al. 2024, arXiv:2410.18097): D_top10 and D_bottom10 of 50 documents.
    """
    folder = out / recipe.name
    told = {"recipe": recipe.model_dump(mode="json")}
    if not restart and (folder / DONE).exists():
        if json.loads((folder / DONE).read_text(encoding="utf-8")) != told:
            raise RecipeError(
                f"{folder} holds a selection of another recipe; "
                "give the recipe a new name, or start over with --restart"
            )
        return folder
    teacher = load_teacher(
        LabelRecipe(
            name=recipe.name,
            teacher=recipe.pre_ranker,
            teacher_kind=recipe.pre_ranker_kind,
            max_length=recipe.max_length,
            sources=recipe.sources,
            batch_tokens=recipe.batch_tokens,
        )
    )
    examples = chain.from_iterable(open_source(source, data) for source in recipe.sources)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scratch = folder / f"{EXAMPLES}.tmp"
    write_examples(scratch, _selected(tqdm(examples, unit="query"), teacher, recipe))
    scratch.replace(folder / EXAMPLES)
    write_json(folder / DONE, dict(told))
    return folder


def ends(example: RankingExample, scores: Float32s, *, top: int, bottom: int) -> RankingExample:
    """Return an example with its `top` best and `bottom` worst candidates alone, best first."""
    order = rank_order(scores.astype(np.float64)).tolist()
    kept = [*order[:top], *order[max(top, len(order) - bottom) :]]
    grades = example.grades
    return replace(
        example,
        candidates=tuple(example.candidates[place] for place in kept),
        grades=None if grades is None else tuple(grades[place] for place in kept),
        teacher_scores=None,
    )


def _selected(
    examples: Iterable[RankingExample], teacher: Teacher, recipe: SelectRecipe
) -> Iterator[RankingExample]:
    for inputs in cut(examples, QUERIES_A_CALL):
        scored = zip(inputs.examples, teacher.score(inputs.examples), strict=True)
        yield from (ends(one, got, top=recipe.top, bottom=recipe.bottom) for one, got in scored)
