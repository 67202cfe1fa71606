"""Held-out queries: what chooses the best checkpoint and calibrates its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from service.contract.checkpoint import Card
from service.contract.encoding import TokenPair
from service.contract.manifest import Relevance
from service.contract.types import Candidate, RankingExample
from training.data import ideal_grades, read_source
from training.evaluate import Evaluation, evaluate, fit_relevance
from training.recipe import JudgedSet, RecipeError

Scored = dict[str, list[float]]  # scores of each query's candidates, by query id
ScorePairs = Callable[[list[TokenPair]], Tensor]
"""Returns the raw logits of token pairs, float32 [N]."""


class Encoder(Protocol):
    """Turns a query and its candidates into token pairs: a student's encoder or a teacher's."""

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Validation:
    """A judged set with its pairs encoded once."""

    name: str
    examples: tuple[RankingExample, ...]
    pairs: dict[str, list[TokenPair]]
    ideal: dict[str, list[float]]

    @classmethod
    def read(cls, source: JudgedSet, data: Path, encoder: Encoder) -> Validation:
        """Return the set a recipe names.

        Raises:
            RecipeError: It cannot be read.
        """
        examples = tuple(read_source(source, data))
        pairs = {
            example.query_id: encoder.encode(example.query, example.candidates)
            for example in examples
        }
        name = ":".join(part for part in (source.path, source.split, source.part) if part)
        return cls(name, examples, pairs, ideal_grades(source, data))

    def score(self, score_pairs: ScorePairs) -> Scored:
        """Return the scores of every query's candidates.

        Raises:
            RecipeError: A score is not finite.
        """
        scored = {}
        for query_id, pairs in self.pairs.items():
            scores = score_pairs(pairs)
            if not torch.isfinite(scores).all():
                raise RecipeError(
                    f"{self.name}: the model's scores are not finite; lower the learning rate"
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


def mean_ndcg(
    validation: Sequence[Validation], score_pairs: ScorePairs, *, relevant_from: float
) -> dict[str, float]:
    """Return each set's nDCG@10 by name, and their mean as `ndcg_at_10`."""
    found = {
        part.name: part.evaluate(
            part.score(score_pairs), relevant_from=relevant_from
        ).ndcg_at_10.value
        for part in validation
    }
    return {**found, "ndcg_at_10": float(np.mean(list(found.values())))}


def final_card(
    card: Card,
    validation: Sequence[Validation],
    score_pairs: ScorePairs,
    *,
    relevant_from: float,
    history: dict[str, Any],
) -> Card:
    """Return the card with the best checkpoint's calibration, its figures and the run's history."""
    with torch.no_grad():
        scored = [part.score(score_pairs) for part in validation]
    found = {
        part.name: part.evaluate(scores, relevant_from=relevant_from)
        for part, scores in zip(validation, scored, strict=True)
    }
    for name, figures in found.items():
        tqdm.write(
            f"{name}: nDCG@10 {figures.ndcg_at_10}  MRR@10 {figures.mrr_at_10}  PNR {figures.pnr}"
        )
    scale, offset = _calibrate(validation, scored, relevant_from=relevant_from)
    score = card.score.model_copy(update={"relevance": Relevance(scale=scale, offset=offset)})
    metrics = {"validation": {name: figures.as_dict() for name, figures in found.items()}}
    return card.model_copy(update={"score": score, "metrics": {**metrics, **history}})


def _calibrate(
    validation: Sequence[Validation], scored: Sequence[Scored], *, relevant_from: float
) -> tuple[float, float]:
    """Fit Platt's scaling on the validation queries, which the model was not taught."""
    scores: list[float] = []
    relevant: list[bool] = []
    for part, found in zip(validation, scored, strict=True):
        for example in part.examples:
            scores.extend(found[example.query_id])
            relevant.extend(grade >= relevant_from for grade in example.grades or ())
    return fit_relevance(scores, relevant)
