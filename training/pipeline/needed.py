"""The data that a pipeline's recipes name, looked for before hours are spent on the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from training.pipeline.pipeline import Pipeline
from training.pipeline.recipe import RecipeStage
from training.recipe import Examples, JudgedSet, Published, RecipeError
from training.retrieval_recipe import InventedQueries, JudgedQueries, QueryFile, RetrieveRecipe
from training.stages import RECIPES


def require_data(pipeline: Pipeline) -> None:
    """Refuse a pipeline one of whose sets or files is missing under its folder of data.

    Raises:
        RecipeError: One is; names the stage.
    """
    for step in pipeline.steps:
        if isinstance(step.stage, RecipeStage):
            recipe = RECIPES[step.stage.stage].model_validate(step.fields)
            _require(recipe, pipeline.data, f"{pipeline.file}: stage {step.stage.name!r}")
    if pipeline.sets is not None:
        _require(pipeline.sets, pipeline.data, f"{pipeline.file}: report")


def _require(recipe: BaseModel, data: Path, where: str) -> None:
    for path in _paths(recipe):
        if not (data / path).exists():
            raise RecipeError(f"{where}: {data / path}: no such file or folder")


def _paths(value: object) -> Iterator[str]:
    match value:
        case JudgedSet() | Examples() | Published() | QueryFile() | JudgedQueries():
            yield value.path
        case RetrieveRecipe() | InventedQueries():
            yield from value.corpora
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                yield from _paths(getattr(value, name))
        case tuple():
            for part in value:
                yield from _paths(part)
