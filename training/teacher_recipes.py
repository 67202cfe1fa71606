"""Recipes of a teacher's training: continued pre-training and supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe import (
    Fraction,
    JudgedSet,
    Labels,
    Optimiser,
    Positive,
    RankLoss,
    RecipePart,
    Seed,
)

Scorer = Literal["last-token", "mean", "likelihood"]


class Lora(RecipePart):
    """Low-rank adapters on every linear layer; the rest of the model stays as it is."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: Fraction = 0.05
    merge: bool = Field(True, description="write plain weights instead of peft's adapter")


class Decoder(RecipePart):
    """A causal language model and how it is trained."""

    base: str = Field(description="a folder, such as a checkpoint of `training cpt`, or a hub name")
    max_length: int = Field(256, ge=8)
    max_query_length: int = Field(64, ge=1)
    lora: Lora | None = Field(None, description="without, all weights are trained")
    gradient_checkpointing: bool = False


class ClickFiles(RecipePart):
    """Rows (query, title, summary) of JSONL, gzipped JSONL or Parquet files, streamed."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1, description="under --data; * and ** are expanded")
    query: str = "query"
    title: str = "title"
    summary: str = "summary"


class ClickDataset(RecipePart):
    """Rows of a Hugging Face data set, streamed."""

    kind: Literal["dataset"] = "dataset"
    name: str = Field(description="hub name, or a folder of data files")
    config: str | None = None
    split: str = "train"
    query: str = "query"
    title: str = "title"
    summary: str = "summary"


class ClickJudged(RecipePart):
    """A judged set's queries with their documents of good grades, as if these were clicked."""

    kind: Literal["judged"] = "judged"
    source: JudgedSet
    clicked_from: float = Field(1, description="least grade")


ClickSource = Annotated[ClickFiles | ClickDataset | ClickJudged, Field(discriminator="kind")]


class ScratchRecipe(RecipePart):
    """A small language model with random weights, and a tokenizer trained on the spot."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    texts: tuple[ClickSource, ...] = Field(min_length=1, description="what the tokenizer reads")
    vocabulary: int = Field(8192, ge=512, description="tokens, at most")
    hidden: int = Field(256, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    key_value_heads: int = Field(2, ge=1, description="Mistral shares each among several heads")
    positions: int = Field(2048, ge=16, description="tokens of the longest row")

    @model_validator(mode="after")
    def _heads_share_evenly(self) -> Self:
        if self.hidden % self.heads or self.heads % self.key_value_heads:
            raise ValueError(
                f"hidden {self.hidden} must be a multiple of heads {self.heads}, and that one of "
                f"key_value_heads {self.key_value_heads}"
            )
        return self


class CptRecipe(RecipePart):
    """Continued pre-training on what was clicked (DisRanker section 3.2)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    model: Decoder
    train: ClickSource
    validation: ClickSource
    validation_rows: int = Field(512, ge=1, description="rows read of the validation source")
    steps: int = Field(ge=1, description="optimiser steps; the source is read again at its end")
    block_rows: int = Field(8192, ge=1, description="rows shuffled and packed together")
    row_tokens: int = Field(1024, ge=8, description="tokens of a packed row")
    rows_per_step: int = Field(8, ge=1)
    rows_per_call: int = Field(1, ge=1, description="packed rows a forward call")
    precision: Literal["no", "bf16"] = "no"
    optimiser: Optimiser = Optimiser()
    evaluate_every: int = Field(200, ge=1, description="steps")
    save_every: int = Field(100, ge=1, description="steps between resumable states")

    @model_validator(mode="after")
    def _rows_hold_a_pair(self) -> Self:
        if self.row_tokens < self.model.max_length:
            raise ValueError(
                f"row_tokens {self.row_tokens} is under model.max_length {self.model.max_length}"
            )
        return self


class SftRecipe(RecipePart):
    """Supervised fine-tuning of a teacher on grades (DisRanker section 3.3)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    model: Decoder
    train: tuple[Annotated[JudgedSet | Labels, Field(discriminator="kind")], ...] = Field(
        min_length=1
    )
    validation: tuple[JudgedSet, ...] = Field(min_length=1)
    relevant_from: float = Field(1, description="grade from which `relevance` should say yes")
    scorer: Scorer = Field("last-token", description="see training/baselines/scorers.py")
    loss: RankLoss = "hinge"
    tau: Positive = Field(0.1, description="margin of hinge")
    pairs_per_group: int = Field(64, ge=1, description="pairs drawn of a group with more")
    epochs: int = Field(1, ge=1)
    group_size: int = Field(8, ge=2, description="candidates of one query scored together")
    groups_per_step: int = Field(8, ge=1)
    groups_per_call: int = Field(1, ge=1, description="groups a forward call")
    precision: Literal["no", "bf16"] = "no"
    optimiser: Optimiser = Optimiser(learning_rate=1e-5)
    evaluate_every: int = Field(200, ge=1, description="steps")
    save_every: int = Field(100, ge=1, description="steps between resumable states")
