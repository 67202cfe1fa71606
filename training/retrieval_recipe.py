"""Recipes of candidate retrieval: which queries meet which documents."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipe import PACKAGED_MINILM, RecipePart, Seed


class QueryFile(RecipePart):
    """Queries of a tab-separated file, gzipped or not: the last of its columns."""

    kind: Literal["file"] = "file"
    path: str
    columns: int = Field(2, ge=1, description="columns up to the query")
    limit: int | None = Field(None, ge=1, description="take this many, by query hash")


class JudgedQueries(RecipePart):
    """Queries of a judged set."""

    kind: Literal["judged"] = "judged"
    path: str
    split: str | None = Field(None, description="those of splits.tsv only")
    split_file: str = "splits.tsv"
    limit: int | None = Field(None, ge=1, description="take this many, by query hash")


class InventedQueries(RecipePart):
    """Queries made of documents: what somebody might have typed who looks for them.

    `title` is the whole title, `question` asks what the title is, `sentence` the text's first words
    up to a full stop, `phrase` some words in a row without a stop word among them.
    """

    kind: Literal["invented"] = "invented"
    corpora: tuple[str, ...] = Field(min_length=1)
    form: Literal["title", "question", "sentence", "phrase"]
    limit: int | None = Field(None, ge=1, description="take this many, by query hash")


QuerySource = Annotated[QueryFile | JudgedQueries | InventedQueries, Field(discriminator="kind")]


class FirstStage(RecipePart):
    """A retriever and what is taken of its ranking: the top, and some from further down."""

    kind: Literal["bm25", "bi-encoder"]
    base: str = Field(PACKAGED_MINILM, description="the bi-encoder's checkpoint")
    max_length: int = Field(256, ge=8, description="the bi-encoder's tokens a text")
    top: int = Field(8, ge=0)
    deep: int = Field(0, ge=0, description="documents drawn from below the top")
    depth: int = Field(100, ge=1, description="last rank that is drawn from")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.top + self.deep > self.depth:
            raise ValueError(f"top {self.top} and deep {self.deep} are over depth {self.depth}")
        return self


class RetrieveRecipe(RecipePart):
    """Queries, each with candidates from several retrievers over several corpora."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Seed = 0
    queries: tuple[QuerySource, ...] = Field(min_length=1)
    exclude: tuple[JudgedQueries, ...] = Field(
        (), description="judged queries that are left out, whoever asks them"
    )
    corpora: tuple[str, ...] = Field(min_length=1)
    retrievers: tuple[FirstStage, ...] = Field(min_length=1)
    random: int = Field(2, ge=0, description="documents drawn from all, a query")
    most_words: int = Field(32, ge=1, description="words of a query; longer ones are left out")
