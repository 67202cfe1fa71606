"""Held-out queries: what chooses the best checkpoint and calibrates its scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from service.contract.encoding import PairEncoder, TokenPair
from service.contract.types import RankingExample
from training.data import ideal_grades, read_source
from training.evaluate import Evaluation, evaluate
from training.recipe import JudgedSet, RecipeError
from training.student import score_pairs

Scored = dict[str, list[float]]  # scores of each query's candidates, by query id


@dataclass(frozen=True, slots=True)
class Validation:
    """A judged set with its pairs encoded once."""

    name: str
    examples: tuple[RankingExample, ...]
    pairs: dict[str, list[TokenPair]]
    ideal: dict[str, list[float]]

    @classmethod
    def read(cls, source: JudgedSet, data: Path, encoder: PairEncoder) -> Validation:
        """Return the set a recipe names.

        Raises:
            RecipeError: It cannot be read.
        """
        examples = tuple(read_source(source, data))
        pairs = {
            example.query_id: encoder.encode(example.query, example.candidates)
            for example in examples
        }
        name = source.path if source.split is None else f"{source.path}:{source.split}"
        return cls(name, examples, pairs, ideal_grades(source, data))

    def score(self, model: nn.Module, *, rows: int) -> Scored:
        """Return the model's scores of every query's candidates.

        Raises:
            RecipeError: A score is not finite.
        """
        scored = {}
        for query_id, pairs in self.pairs.items():
            scores = score_pairs(model, pairs, rows=rows)
            if not torch.isfinite(scores).all():
                raise RecipeError(
                    f"{self.name}: the student's scores are not finite; lower the learning rate"
                )
            scored[query_id] = [float(score) for score in scores]
        return scored

    def evaluate(self, scored: Scored, *, relevant_from: float) -> Evaluation:
        """Return the figures of those scores."""
        return evaluate(
            self.examples,
            lambda example: scored[example.query_id],
            ideal=self.ideal,
            relevant_from=relevant_from,
        )
