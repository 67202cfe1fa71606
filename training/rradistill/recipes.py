"""Recipes of RRADistill: which documents are ranked, the reasons, and the decoder that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from training.prompting.recipe import Speaker
from training.recipe import Labels, RankLoss, RecipePart
from training.teacher_recipes import SftRecipe


class SelectRecipe(RecipePart):
    """The first and the last candidates of each query, by a pre-ranker."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    labels: Path = Field(description="folder of `training label`, the pre-ranker its teacher")
    top: int = Field(10, ge=1, description="first ones, to be ranked by a language model")
    bottom: int = Field(10, ge=0, description="last ones, the easy negatives")


class ReasonsRecipe(RecipePart):
    """Why a language model's ranking is as it is, in its own or a smaller one's words."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    labels: Path = Field(description="folder of `training label`, with tiers as scores")
    model: Speaker
    cache: Path | None = Field(None, description="file of answers, so that none is asked for twice")
    yes_from: float = Field(1, description="score from which a document answers the query")
    document_words: int = Field(150, ge=1, description="words kept of a document")
    reason_tokens: int = Field(64, ge=1, description="most tokens of a reason")


class RraGptRecipe(SftRecipe):
    """A decoder that learns to rank, and to write label and reason after the pair."""

    train: tuple[Labels, ...] = Field(min_length=1)
    scorer: Literal["last-token"] = "last-token"
    loss: RankLoss = "ranknet"
    reasons: Path | None = Field(None, description="folder of `training reasons`")
    yes_from: float = Field(1, description="score from which the label is yes")
    gamma: float = Field(1.0, ge=0, description="weight of the language model's loss")
    answer_tokens: int = Field(64, ge=2, description="tokens kept of label and reason")
