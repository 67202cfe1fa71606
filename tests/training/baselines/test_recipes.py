"""The recipes of the baselines and of RRADistill are what their commands take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from training.baselines.paper_table import TableRecipe
from training.prompting.recipe import PromptingRecipe
from training.recipe import load_recipe
from training.stages import RECIPES

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "training" / "recipes").glob("*/*.toml"))
KINDS: dict[str, type[BaseModel]] = {**RECIPES, "tables": TableRecipe, "compare": PromptingRecipe}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_command_at_a_recipes_head_takes_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    command = re.search(r"-m training (\w+) (.*)", text)
    assert command is not None
    named = ROOT / next(word for word in reversed(command[2].split()) if word.endswith(".toml"))
    kind = KINDS[command[1]] if named == path else PromptingRecipe
    load_recipe(path, kind)
    assert named.exists()
    for teacher in re.findall(r'teacher = "(training/.*)"', text):
        load_recipe(ROOT / teacher, PromptingRecipe)
