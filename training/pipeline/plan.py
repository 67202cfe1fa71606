"""The plan of a pipeline: every stage of every seed, whole and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.contract.errors import first_error
from training.pipeline.recipe import ExportStage, LatencyStage, PipelineRecipe, RecipeStage
from training.recipe import RecipeError, read_toml
from training.stages import RECIPES

REFERENCE = re.compile(r"\{(.*)\}")

Checked = TypeVar("Checked", bound=BaseModel)
AnyStage = RecipeStage | ExportStage | LatencyStage


@dataclass(frozen=True, slots=True)
class Step:
    """A stage with one seed.

    Attributes:
        name: The stage's, followed by the seed where there are several.
        stage: What the recipe says of it.
        seed: None where the stage is run once.
        wanted: Its fields with "{name}" for what other stages write.
        fields: The same with paths; a whole recipe, where the stage has one.
        reads: The steps it reads.
        output: The checkpoint, bundle, labels or file that it writes.
    """

    name: str
    stage: AnyStage
    seed: int | None
    wanted: dict[str, Any]
    fields: dict[str, Any]
    reads: tuple[str, ...]
    output: Path


def make_plan(recipe: PipelineRecipe, file: Path, *, folder: Path) -> list[Step]:
    """Return the steps in the order they run: all stages of one seed before the next seed's.

    Args:
        recipe: The pipeline.
        file: Where it was read from; recipes are relative to it.
        folder: Where the stages write.

    Raises:
        RecipeError: A recipe is missing or has a wrong field, or a stage reads what no earlier one
            writes; the message names file, stage and field.
    """
    made: dict[str, dict[int | None, Step]] = {}
    for stage in recipe.stages:
        where = f"{file}: stage {stage.name!r}"
        wanted = _wanted(stage, file, where)
        reads = list(dict.fromkeys(_references(wanted)))
        for name in reads:
            if name not in made:
                later = name in {other.name for other in recipe.stages}
                problem = "is no earlier stage" if later else "is no stage"
                raise RecipeError(f"{where} reads {{{name}}}, which {problem}")
        seeded = any(None not in made[name] for name in reads) or _has_seed(stage)
        seeds = recipe.seeds if seeded and recipe.seeds else (None,)
        made[stage.name] = {
            seed: _step(stage, seed, wanted, [_of(made[name], seed) for name in reads], folder)
            for seed in seeds
        }
        if isinstance(stage, RecipeStage):
            for step in made[stage.name].values():
                checked(RECIPES[stage.stage], step.fields, stage.recipe, where)
    steps = [step for by_seed in made.values() for step in by_seed.values()]
    _check_names(steps, file)
    rounds: dict[int | None, int] = {seed: place for place, seed in enumerate(recipe.seeds)}
    return sorted(steps, key=lambda step: rounds.get(step.seed, 0))


def _wanted(stage: AnyStage, file: Path, where: str) -> dict[str, Any]:
    """Return the stage's fields as its recipe has them, with `set` laid over."""
    match stage:
        case RecipeStage():
            return laid_over(stage.recipe, stage.set, file, where)
        case ExportStage():
            return {"checkpoint": stage.checkpoint, "precision": list(stage.precision)}
        case LatencyStage():
            return {"arguments": list(stage.arguments)}


def laid_over(
    recipe: Path | None, over: Mapping[str, Any], file: Path, where: str
) -> dict[str, Any]:
    """Return a recipe's fields with others laid over them; nested tables merge, lists do not.

    Raises:
        RecipeError: There is no such recipe, or it is no TOML; says where it was named.
    """
    try:
        return _merged({} if recipe is None else read_toml(file.parent / recipe), over)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def checked(
    kind: type[Checked], fields: dict[str, Any], recipe: Path | None, where: str
) -> Checked:
    """Return a recipe of fields that were laid over a file's.

    Raises:
        RecipeError: A field is unknown or wrong; says where the recipe was named.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        origin = "" if recipe is None else f" ({recipe}, with what is `set`)"
        raise RecipeError(f"{where}{origin}: {first_error(error)}") from None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for name, value in over.items():
        old = both.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        both[name] = value
    return both


def _has_seed(stage: AnyStage) -> bool:
    """Tell whether a stage is run with the pipeline's seeds: not if it sets one of its own."""
    if not isinstance(stage, RecipeStage):
        return False
    return "seed" in RECIPES[stage.stage].model_fields and "seed" not in stage.set


def _of(by_seed: Mapping[int | None, Step], seed: int | None) -> Step:
    return by_seed[None] if None in by_seed else by_seed[seed]


def _step(
    stage: AnyStage, seed: int | None, wanted: dict[str, Any], reads: list[Step], folder: Path
) -> Step:
    name = stage.name if seed is None else f"{stage.name}-{seed}"
    if isinstance(stage, RecipeStage):
        wanted = {**wanted, "name": name}
        if seed is not None and _has_seed(stage):
            wanted["seed"] = seed
    paths = {step.stage.name: str(step.output) for step in reads}
    fields = _replaced(wanted, lambda reference: paths[reference])
    return Step(
        name,
        stage,
        seed,
        wanted,
        fields,
        tuple(step.name for step in reads),
        _output(stage, folder / name),
    )


def _output(stage: AnyStage, folder: Path) -> Path:
    match stage.stage:
        case "cpt" | "sft" | "rra_gpt" | "distill" | "layerwise" | "average":
            return folder / "checkpoint"
        case "latency":
            return folder / "latency.json"
        case _:
            return folder


def _check_names(steps: list[Step], file: Path) -> None:
    names = [step.name for step in steps]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise RecipeError(f"{file}: two stages would write {name!r}; rename one")


def _references(value: Any) -> Iterator[str]:
    found: list[str] = []

    def note(reference: str) -> str:
        found.append(reference)
        return ""

    _replaced(value, note)
    yield from found


def _replaced(value: Any, path_of: Callable[[str], str]) -> Any:
    """Return a value with every string "{name}" in it replaced."""
    match value:
        case dict():
            return {name: _replaced(part, path_of) for name, part in value.items()}
        case list():
            return [_replaced(part, path_of) for part in value]
        case str() if found := REFERENCE.fullmatch(value):
            return path_of(found[1])
        case _:
            return value
