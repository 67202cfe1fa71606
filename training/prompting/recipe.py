"""Recipes of prompted rankers: which language model is asked what."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.hashing import model_digest
from training.recipe import Positive, RecipeError, RecipePart

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Endpoint(RecipePart):
    """A language model behind OpenAI's HTTP API: OpenAI's own, vLLM, llama.cpp and others.

    `api` is "chat" for models that were taught to chat. "completions" is the older one; the
    likelihood of a text is asked there in any case, which OpenAI's own models no longer tell.
    """

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(description="up to and with /v1")
    model: str = Field(description="what the server calls it")
    api: Literal["chat", "completions"] = "chat"
    key_variable: str | None = Field(
        None, description="environment variable with the bearer key; keys are not for recipes"
    )
    connections: int = Field(8, ge=1, description="requests at a time")
    requests_per_s: Positive | None = Field(None, description="most requests a second")
    timeout_s: Positive = 120.0
    prompt_price: NotNegative = Field(0.0, description="of a million tokens read, in any currency")
    completion_price: NotNegative = Field(0.0, description="of a million tokens written")

    def key(self) -> str | None:
        """Return the bearer key.

        Raises:
            RecipeError: The variable that should hold it is not set.
        """
        key = os.environ.get(self.key_variable) if self.key_variable else None
        if self.key_variable and not key:
            raise RecipeError(f"the environment variable {self.key_variable} holds no key")
        return key

    def identity(self) -> str:
        """Return what tells its answers from another model's."""
        return f"{self.url} {self.model} {self.api}"


class Local(RecipePart):
    """A causal language model in this process; its chat template is used where it has one."""

    kind: Literal["local"] = "local"
    base: str = Field(description="a folder or a hub name")
    batch_tokens: int = Field(8192, ge=16, description="tokens a call, padding included")
    precision: Literal["fp32", "bf16"] = "fp32"

    def identity(self) -> str:
        """Return what tells its answers from another model's: its files where it is a folder."""
        return f"{self.base} {self.precision} {hashlib.sha256(model_digest(self.base)).hexdigest()}"


Speaker = Annotated[Endpoint | Local, Field(discriminator="kind")]

Method = Literal["yes-no", "likelihood", "pairs", "sorting", "listwise", "tiers"]


class PromptingRecipe(RecipePart):
    """A ranker that is a prompted language model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    method: Method = Field(description="see docs/baselines.md")
    model: Speaker
    cache: Path | None = Field(None, description="file of answers, so that none is asked for twice")
    order: Literal["bm25", "given"] = Field(
        "bm25", description="the documents' order before; given: as they come, such as a run's"
    )
    window: int = Field(20, ge=2, description="listwise: documents of a prompt")
    step: int = Field(10, ge=1, description="listwise: places a window moves")
    shown: int = Field(10, ge=1, description="tiers: the first documents, which the model ranks")
    document_words: int = Field(150, ge=1, description="words kept of a document")

    @model_validator(mode="after")
    def _passes_over_none(self) -> Self:
        if self.step > self.window:
            raise ValueError(
                f"step {self.step} is over window {self.window}: some are in no window"
            )
        return self

    def digest(self) -> bytes:
        """Return a digest of what decides its scores; how fast a model is asked does not."""
        fields = self.model_dump(mode="json", exclude={"cache", "model"})
        return (json.dumps(fields, sort_keys=True) + self.model.identity()).encode()
