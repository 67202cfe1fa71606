"""A judged set, read for evaluation, and systems' scores of its queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.contract.types import RankingExample
from training.data import read_qrels, read_source
from training.figures import Floats, JudgedScores, document_ids, judge
from training.prompting.prompted import Prompted
from training.recipe import Examples, JudgedSet, Published, RecipeError
from training.systems import System
from training.trec import Qrels
from training.zero_shot import Bm25


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """Queries with graded candidates.

    Attributes:
        name: What reports call the set.
        examples: At least one, each with grades.
        qrels: Every judgement of each query; the ideal ranking is drawn from these and from the
            candidates' grades.
        first_stage_name: Whose order the candidates are in, where it is a retriever's.
    """

    name: str
    examples: tuple[RankingExample, ...]
    qrels: Qrels
    first_stage_name: str | None

    def score(self, system: System) -> list[JudgedScores]:
        """Return the system's scores of every query, in the order of the examples.

        Raises:
            RecipeError: The system knows none of the queries.
        """
        rows = tqdm(
            self._scored(system),
            desc=f"{self.name}: {system.name}",
            total=len(self.examples),
            unit="query",
            disable=None,
        )
        found = [self._judge(*row) for row in rows]
        if not any(query.documents for query in found):
            raise RecipeError(f"{system.name}: no query of {self.name} is in it")
        return found

    def _scored(self, system: System) -> Iterator[tuple[RankingExample, Sequence[str], Floats]]:
        """Yield each example with the documents and the scores that the system gives."""
        if isinstance(system, Prompted):
            every = zip(self.examples, system.score_all(self.examples), strict=True)
            yield from ((example, document_ids(example), scores) for example, scores in every)
            return
        ranker = system.over(self.examples) if isinstance(system, Bm25) else system
        for example in self.examples:
            yield example, *ranker.score(example)

    def first_stage(self) -> list[JudgedScores]:
        """Return the candidates in their own order, as a system's scores."""
        return [
            self._judge(example, document_ids(example), -np.arange(float(len(example.candidates))))
            for example in self.examples
        ]

    def judgements(self) -> Qrels:
        """Return every grade that the figures rest on, of the queries that are here."""
        found: Qrels = {}
        for example in self.examples:
            grades = zip(document_ids(example), example.grades or (), strict=False)
            found[example.query_id] = {**self.qrels.get(example.query_id, {}), **dict(grades)}
        return found

    def _judge(
        self,
        example: RankingExample,
        documents: Sequence[str],
        scores: Sequence[float] | NDArray[np.floating],
    ) -> JudgedScores:
        return judge(example, documents, scores, self.qrels.get(example.query_id))


def read_judged_queries(source: JudgedSet | Examples | Published, data: Path) -> JudgedQueries:
    """Return the set a recipe names.

    Raises:
        RecipeError: It cannot be read, or an example of it has no grades or an id twice.
    """
    examples = tuple(read_source(source, data))
    name = _name(source)
    for example in examples:
        if example.grades is None:
            raise RecipeError(f"{name}: query {example.query_id!r} has no grades to judge by")
        if len(set(document_ids(example))) < len(example.candidates):
            raise RecipeError(f"{name}: query {example.query_id!r} has a document id twice")
    if not isinstance(source, JudgedSet):
        return JudgedQueries(name, examples, {}, None)
    qrels = read_qrels(data / source.path / (source.ideal_qrels or source.qrels))
    stage = f"{source.retriever or 'first stage'}, top {source.depth}" if source.runs else None
    return JudgedQueries(name, examples, qrels, stage)


def _name(source: JudgedSet | Examples | Published) -> str:
    parts: list[str | None]
    match source:
        case JudgedSet():
            parts = [source.path, source.split, source.part, *_tail(source)]
        case Examples():
            parts = [source.path, source.part]
        case Published():
            parts = [source.path, source.subset, source.part]
    return " ".join(part for part in parts if part)


def _tail(source: JudgedSet) -> list[str]:
    long = [f"words from {source.words_from}"] if source.words_from > 1 else []
    return long if source.rarest_to is None else [*long, f"rarest to {source.rarest_to}"]
