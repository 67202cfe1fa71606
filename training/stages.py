"""The stages that a recipe describes whole: the recipe's kind, and the function that runs it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from training.layerwise.recipe import LayerwiseRecipe
from training.recipe import AverageRecipe, DistillRecipe, LabelRecipe
from training.retrieval_recipe import RetrieveRecipe
from training.rradistill.recipes import ReasonsRecipe, RraGptRecipe, SelectRecipe
from training.teacher_recipes import CptRecipe, ScratchRecipe, SftRecipe

RecipeKind = type[
    ScratchRecipe
    | CptRecipe
    | SftRecipe
    | RetrieveRecipe
    | SelectRecipe
    | LabelRecipe
    | ReasonsRecipe
    | RraGptRecipe
    | DistillRecipe
    | LayerwiseRecipe
    | AverageRecipe
]

RECIPES: dict[str, RecipeKind] = {
    "scratch": ScratchRecipe,
    "cpt": CptRecipe,
    "sft": SftRecipe,
    "retrieve": RetrieveRecipe,
    "select": SelectRecipe,
    "label": LabelRecipe,
    "reasons": ReasonsRecipe,
    "rra_gpt": RraGptRecipe,
    "distill": DistillRecipe,
    "layerwise": LayerwiseRecipe,
    "average": AverageRecipe,
}

OWN_PACKAGES = {
    "select": "rradistill.",
    "reasons": "rradistill.",
    "rra_gpt": "rradistill.",
    "layerwise": "layerwise.",
}
"""Of the stages whose modules are not in `training` itself."""


def run_stage(stage: str, recipe: Any, **options: Any) -> Path:
    """Run a stage and return the folder of what it wrote; torch is imported now, not before."""
    run = getattr(import_module(f"training.{OWN_PACKAGES.get(stage, '')}{stage}"), stage)
    folder: Path = run(recipe, **options)
    return folder
