"""A pipeline on disk: its checked steps, where they write, and how each of them stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.pipeline.found import made_at
from training.pipeline.marks import Mark, changes, inputs_of, read_mark
from training.pipeline.plan import Step, checked, laid_over, make_plan
from training.pipeline.recipe import ExportStage, PipelineRecipe, RecipeStage
from training.recipe import EvaluateRecipe, RecipeError, load_recipe
from training.system_names import is_named

STAGES = "stages"
LAUNCHED = ("cpt", "sft", "rra_gpt", "distill", "layerwise")
SYSTEMS = ("sft", "label", "rra_gpt", "distill", "layerwise", "average", "export")
"""Stages whose outcome ranks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a step stands.

    Attributes:
        state: Finished; found, made without the pipeline; never begun; begun; or made of something
            else than it would be now.
        mark: What is written of it; of one that was found, what is to be written.
        inputs: What it would be made of now; None while a step that it reads is not finished.
    """

    state: Literal["done", "found", "new", "stopped", "changed"]
    mark: Mark | None
    inputs: dict[str, str] | None

    @property
    def reason(self) -> str:
        """Which inputs have changed."""
        if self.mark is None or self.inputs is None:
            return "what it reads"
        return changes(self.mark, self.inputs)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline and where it lives.

    Attributes:
        file: The recipe's file.
        recipe: What it says.
        sets: The judged sets of the report, if there is one.
        steps: What is to be run, in order.
        data: Folder of the data.
        out: Folder of runs.
    """

    file: Path
    recipe: PipelineRecipe
    sets: EvaluateRecipe | None
    steps: tuple[Step, ...]
    data: Path
    out: Path

    @classmethod
    def load(cls, file: Path, *, data: Path, out: Path) -> Pipeline:
        """Return the pipeline of a file, with every recipe in it checked.

        Raises:
            RecipeError: Something in it cannot be used; file, stage and field are named.
        """
        recipe = load_recipe(file, PipelineRecipe)
        if not data.is_dir():
            raise RecipeError(f"{data}: no such folder; is --data right?")
        steps = make_plan(recipe, file, folder=out / recipe.name)
        return cls(file, recipe, _sets(recipe, file), tuple(steps), data, out)

    @property
    def folder(self) -> Path:
        """The folder of everything the pipeline makes."""
        return self.out / self.recipe.name

    def path(self, step: Step, suffix: str) -> Path:
        """Return a step's recipe (.toml), log (.log) or mark (.json)."""
        return self.folder / STAGES / f"{step.name}{suffix}"

    def command(self, step: Step) -> list[str]:
        """Return the command that runs a step, be it alone."""
        match step.stage:
            case RecipeStage():
                where = ["--data", str(self.data), "--out", str(self.folder)]
                program = [step.stage.stage, str(self.path(step, ".toml")), *where]
            case ExportStage():
                precisions = [f"--precision={name}" for name in step.stage.precision]
                paths = [step.fields["checkpoint"], str(step.output), "--overwrite"]
                program = ["bundle", *paths, *precisions]
            case _:
                program = ["latency", "--json", str(step.output)]
        launch = self.recipe.launch if step.stage.stage in LAUNCHED else ()
        starter = ["-m", "accelerate.commands.launch", *launch] if launch else []
        package = "export" if isinstance(step.stage, ExportStage) else "training"
        return [sys.executable, *starter, "-m", package, *program, *step.stage.arguments]

    def standing(self, step: Step, done: Mapping[str, Mark]) -> Standing:
        """Return how a step stands.

        Args:
            step: The step.
            done: The marks of the earlier steps that are finished.
        """
        mark = read_mark(self.path(step, ".json"))
        if any(name not in done for name in step.reads):
            return Standing("new" if mark is None else "changed", mark, None)
        inputs = inputs_of(step, done, self.data)
        if mark is None:
            made = made_at(step)
            if made is None or any(made < str(done[name].finished_at) for name in step.reads):
                return Standing("new", mark, inputs)
            found = Mark(inputs, self.command(step), made, finished_at=made)
            return Standing("found", found, inputs)
        if mark.inputs != inputs:
            return Standing("changed", mark, inputs)
        finished = mark.finished_at is not None and step.output.exists()
        return Standing("done" if finished else "stopped", mark, inputs)

    def finished(self) -> dict[str, Mark]:
        """Return the marks of the steps that are finished and made of what is there now."""
        done: dict[str, Mark] = {}
        for step in self.steps:
            standing = self.standing(step, done)
            if standing.state == "done" and standing.mark is not None:
                done[step.name] = standing.mark
        return done


def _sets(recipe: PipelineRecipe, file: Path) -> EvaluateRecipe | None:
    if recipe.report is None:
        return None
    names = {stage.name for stage in recipe.stages if stage.stage in SYSTEMS}
    for system in recipe.report.systems:
        if not (system in names or is_named(system) or Path(system).exists()):
            raise RecipeError(
                f"{file}: report.systems: {system!r} is no stage that ranks and no path"
            )
    where = f"{file}: report"
    fields = laid_over(recipe.report.recipe, recipe.report.set, file, where)
    return checked(EvaluateRecipe, fields, recipe.report.recipe, where)
