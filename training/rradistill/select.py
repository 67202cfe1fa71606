"""Selection: of each query's candidates, those that a pre-ranker puts first, and last."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.contract.examples import write_examples
from service.contract.order import rank_order
from service.contract.types import RankingExample
from training.data import EXAMPLES, LabelFolder
from training.recipe import RecipeError
from training.rradistill.recipes import SelectRecipe
from training.shards import write_json

DONE = "selected.json"


def select(
    recipe: SelectRecipe,
    *,
    data: Path,  # noqa: ARG001 - what every stage is told
    out: Path,
    restart: bool = False,
) -> Path:
    """Write each query's first and last candidates to `out/<recipe name>` and return the folder.

    They are in the pre-ranker's order; `kind = "retrieved"` reads the folder. Nothing is done anew
    where the recipe's selection is there.

    Args:
        recipe: The pre-ranker's labels, and how many of them.
        data: Not looked at.
        out: Folder of runs.
        restart: Throw an earlier selection of this name away.

    Raises:
        RecipeError: The labels cannot be read, or the folder holds another recipe's selection.

    Source:
        RRADistill (Choi et al. 2024, arXiv:2410.18097): D_top10 and D_bottom10 of 50 documents.
    """
    folder, labels = out / recipe.name, LabelFolder(recipe.labels)
    digest = hashlib.sha256((recipe.labels / "labels.json").read_bytes()).hexdigest()
    told: dict[str, object] = {"recipe": recipe.model_dump(mode="json"), "labels": digest}
    if not restart and (folder / DONE).exists():
        if json.loads((folder / DONE).read_text(encoding="utf-8")) != told:
            raise RecipeError(
                f"{folder} holds a selection of another recipe or of other labels; "
                "give the recipe a new name, or start over with --restart"
            )
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scratch = folder / f"{EXAMPLES}.tmp"
    kept = (ends(one, top=recipe.top, bottom=recipe.bottom) for one in labels)
    write_examples(scratch, tqdm(kept, unit="query"))
    scratch.replace(folder / EXAMPLES)
    write_json(folder / DONE, told)
    return folder


def ends(example: RankingExample, *, top: int, bottom: int) -> RankingExample:
    """Return an example with its `top` best and `bottom` worst candidates alone, best first.

    Best by its teacher's scores, which the result no longer has.
    """
    order = rank_order(np.array(example.teacher_scores, dtype=np.float64)).tolist()
    kept = [*order[:top], *order[max(top, len(order) - bottom) :]]
    grades = example.grades
    return replace(
        example,
        candidates=tuple(example.candidates[place] for place in kept),
        grades=None if grades is None else tuple(grades[place] for place in kept),
        teacher_scores=None,
    )
