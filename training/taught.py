"""What a student is taught: queries with standardised teacher scores, and the order of lessons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.contract.bundle import TeacherScale
from service.contract.encoding import PairEncoder, TokenIds
from service.contract.types import RankingExample
from training.data import read_source
from training.label import teacher_name
from training.recipe import DistillRecipe, JudgedSet, Labels, RecipeError, TrainSource
from training.teacher_recipes import SftRecipe


@dataclass(frozen=True, slots=True)
class TaughtQuery:
    """A query's token ids with its candidates' ids and standardised teacher scores."""

    query_ids: TokenIds
    document_ids: tuple[TokenIds, ...]
    teacher: NDArray[np.float32]  # [N]
    repeat: int


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one query that are scored together in a step."""

    query: TaughtQuery
    places: NDArray[np.int64]  # [G] candidates of the query


class Lessons:
    """The groups of each step, a function of (recipe seed, step) alone."""

    def __init__(self, queries: Sequence[TaughtQuery], recipe: DistillRecipe | SftRecipe) -> None:
        self._queries = queries
        self._recipe = recipe
        groups = sum(self._group_count(query) * query.repeat for query in queries)
        self.steps_per_epoch = -(-groups // recipe.groups_per_step)
        self._drawn: tuple[int, list[Group]] = (-1, [])

    def step(self, step: int) -> list[Group]:
        """Return the groups of a step, at least one."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        size = self._recipe.groups_per_step
        return self._drawn[1][place * size : (place + 1) * size]

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """Yield everything that is taught, for a fingerprint."""
        for query in self._queries:
            yield from (query.query_ids, query.teacher, *query.document_ids)

    def _draw(self, epoch: int) -> list[Group]:
        rng = np.random.default_rng([self._recipe.seed, epoch])
        groups: list[Group] = []
        for query in self._queries:
            for _ in range(query.repeat):
                order = rng.permutation(len(query.teacher))
                parts = np.array_split(order, self._group_count(query))
                groups.extend(Group(query, part) for part in parts)
        return [groups[place] for place in rng.permutation(len(groups))]

    def _group_count(self, query: TaughtQuery) -> int:
        return max(1, round(len(query.teacher) / self._recipe.group_size))


def read_taught(
    recipe: DistillRecipe, data: Path, encoder: PairEncoder
) -> tuple[list[TaughtQuery], dict[str, TeacherScale]]:
    """Return the recipe's training queries and the scale of each teacher.

    Queries with a single candidate are left out: there is nothing to rank.

    Raises:
        RecipeError: A source cannot be read, or lacks a score.
    """
    read = [(part, read_source(part.source, data)) for part in recipe.train]
    raw: dict[str, list[float]] = {}
    for part, examples in read:
        values = raw.setdefault(_teacher(part), [])
        values.extend(score for example in examples for score in _scores(part, example))
    scales = {
        name: TeacherScale(mean=float(np.mean(values)), std=float(np.std(values)) or 1.0)
        for name, values in raw.items()
    }
    queries = [
        _taught(part, example, scales[_teacher(part)], encoder)
        for part, examples in read
        for example in examples
        if len(example.candidates) > 1
    ]
    return queries, scales


def _taught(
    part: TrainSource, example: RankingExample, scale: TeacherScale, encoder: PairEncoder
) -> TaughtQuery:
    scores = (np.array(_scores(part, example)) - scale.mean) / scale.std
    return TaughtQuery(
        encoder.encode_query(example.query),
        tuple(encoder.encode_documents(example.candidates)),
        scores.astype(np.float32),
        part.repeat,
    )


def _teacher(part: TrainSource) -> str:
    if isinstance(part.source, JudgedSet):
        return f"grades:{part.source.path}"
    if isinstance(part.source, Labels) and part.teacher == "labels":
        return teacher_name(part.source.path)
    return "grades"


def _scores(part: TrainSource, example: RankingExample) -> Sequence[float]:
    scores = example.teacher_scores if part.teacher == "labels" else example.grades
    if scores is None:
        raise RecipeError(f"{_teacher(part)}: query {example.query_id!r} has no score to learn")
    return scores
