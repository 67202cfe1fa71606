"""A prompted language model as a ranker: a system to compare, and a teacher that labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.contract.order import rank_order
from service.contract.template import document_text
from service.contract.types import Candidate, Float32s, RankingExample
from training.figures import Floats, document_ids
from training.prompting.listwise import tiers, windows
from training.prompting.pairwise import all_pairs, sorting
from training.prompting.pointwise import likelihood, yes_no
from training.prompting.recipe import PromptingRecipe
from training.prompting.speakers import Counted, open_speaker
from training.prompting.steps import Steps, answered, together
from training.recipe import load_recipe
from training.zero_shot import Bm25

QUERIES_AT_ONCE = 8
"""Queries that are ranked side by side, so that a method that waits for answers is not alone."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """A ranker by prompts."""

    name: str
    recipe: PromptingRecipe
    model: Counted
    relevance: None = None

    @classmethod
    def load(cls, path: Path) -> Prompted:
        """Return the ranker of a recipe.

        Raises:
            RecipeError: The recipe or its language model cannot be used.
        """
        recipe = load_recipe(path, PromptingRecipe)
        return cls(recipe.name, recipe, open_speaker(recipe.model, recipe.cache))

    def score(self, example: RankingExample) -> tuple[list[str], Floats]:
        """Return the candidates' ids and scores.

        Raises:
            AnswerError: The language model does not answer.
        """
        (scores,) = self.score_all([example])
        return document_ids(example), scores

    def score_all(self, examples: Sequence[RankingExample]) -> Iterator[Floats]:
        """Yield each example's scores, in the candidates' order; says at the end what it took.

        It is said of a run that fails as well: what was answered by then has been paid for.

        Raises:
            AnswerError: The language model does not answer.
        """
        first = Bm25().over(examples) if self.recipe.order == "bm25" else None
        alike = 0
        try:
            for start in range(0, len(examples), QUERIES_AT_ONCE):
                chunk = examples[start : start + QUERIES_AT_ONCE]
                found = answered(together([self._ranked(one, first) for one in chunk]), self.model)
                alike += sum(len(scores) > 1 and np.ptp(scores) == 0 for scores in found)
                yield from found
        finally:
            more = f"; {alike} of {len(examples)} queries without any order" if alike else ""
            tqdm.write(f"{self.name}: {self.model}{more}")

    def _ranked(self, example: RankingExample, first: Bm25 | None) -> Steps[Floats]:
        """Rank an example's documents in their first order, and return scores in their own."""
        order = np.arange(len(example.candidates))
        if first is not None:
            order = rank_order(first.score(example)[1])
        documents = [self._text(example.candidates[place]) for place in order]
        scores = np.empty(len(order))
        scores[order] = yield from self._method(example.query, documents)
        return scores

    def _method(self, query: str, documents: Sequence[str]) -> Steps[Floats]:
        match self.recipe.method:
            case "yes-no":
                return yes_no(query, documents)
            case "likelihood":
                return likelihood(query, documents)
            case "pairs":
                return all_pairs(query, documents)
            case "sorting":
                return sorting(query, documents)
            case "listwise":
                return windows(query, documents, size=self.recipe.window, step=self.recipe.step)
            case "tiers":
                return tiers(query, documents, shown=self.recipe.shown)

    def _text(self, candidate: Candidate) -> str:
        return " ".join(document_text(candidate).split()[: self.recipe.document_words])


class PromptedTeacher:
    """A prompted language model whose scores are labels."""

    def __init__(self, path: Path) -> None:
        """Load the ranker of a recipe.

        Raises:
            RecipeError: The recipe or its language model cannot be used.
        """
        self._prompted = Prompted.load(path)

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the scores of each example's candidates.

        Raises:
            AnswerError: The language model does not answer.
        """
        scores = self._prompted.score_all(examples)
        bar = tqdm(scores, total=len(examples), desc="asking", unit="query", leave=False)
        return [found.astype(np.float32) for found in bar]
