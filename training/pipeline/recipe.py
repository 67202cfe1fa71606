"""The recipe of a pipeline: its stages in order, and what its report compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from service.contract.manifest import Precision
from training.recipe import RecipePart, Seed

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Figure = Literal["ndcg_at_5", "ndcg_at_10", "mrr_at_10", "pnr", "pairwise_accuracy"]

FIGURES: tuple[Figure, ...] = ("ndcg_at_5", "ndcg_at_10", "mrr_at_10", "pnr", "pairwise_accuracy")
OWN_FOLDERS = ("stages", "scores", "report")


class _Stage(RecipePart):
    name: Name = Field("", validate_default=False, description="default: the stage's own")
    arguments: tuple[str, ...] = Field((), description="more of the command line, as --tensorboard")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, fields: Any) -> Any:
        return {"name": fields.get("stage"), **fields} if isinstance(fields, dict) else fields


class RecipeStage(_Stage):
    """A stage of `python -m training` that has a recipe."""

    stage: Literal[
        "scratch",
        "cpt",
        "sft",
        "retrieve",
        "select",
        "label",
        "reasons",
        "rra_gpt",
        "distill",
        "layerwise",
        "average",
    ]
    recipe: Path | None = Field(None, description="TOML file, relative to the pipeline's")
    set: dict[str, Any] = Field({}, description="fields laid over the file's; nested tables merge")


class ExportStage(_Stage):
    """A bundle of a checkpoint."""

    stage: Literal["export"]
    checkpoint: str = Field(description="{stage}, or a folder")
    precision: tuple[Precision, ...] = Field((), description="default: as export's")


class LatencyStage(_Stage):
    """The latency table of this machine, which goes into the report."""

    stage: Literal["latency"]


Stage = Annotated[RecipeStage | ExportStage | LatencyStage, Field(discriminator="stage")]


class ReportOptions(RecipePart):
    """Which systems are judged on which sets."""

    recipe: Path | None = Field(None, description="an evaluate recipe, relative to the pipeline's")
    set: dict[str, Any] = Field({}, description="fields laid over the file's, as of a stage")
    systems: tuple[str, ...] = Field(
        min_length=1, description="stages, or what `training evaluate` takes as --model"
    )
    baseline: str | None = Field(None, description="a system; default: the first")
    figures: tuple[Figure, ...] = Field(FIGURES, min_length=1)
    scores: tuple[str, ...] = Field(
        (), description="systems whose distributions are shown; PSI refers to the first"
    )

    @model_validator(mode="after")
    def _knows_its_systems(self) -> Self:
        for name in (*self.scores, self.baseline or self.systems[0]):
            if name not in self.systems:
                raise ValueError(f"{name!r} is none of the systems")
        if len(set(self.systems)) < len(self.systems):
            raise ValueError("a system is there twice")
        return self


class PipelineRecipe(RecipePart):
    """One experiment: stages, each read by later ones as "{name}", and a report."""

    name: Name
    seeds: tuple[Seed, ...] = Field((), description="a stage that has a seed is run with each")
    launch: tuple[str, ...] = Field(
        (), description="arguments of `accelerate launch`, which then starts what trains a model"
    )
    stages: tuple[Stage, ...] = Field(min_length=1)
    report: ReportOptions | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"two stages are named {name!r}; give one a `name` of its own")
            if name in OWN_FOLDERS:
                raise ValueError(f"a stage cannot be named {name!r}, a folder of the pipeline's")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        return self
