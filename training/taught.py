"""What a student is taught: queries with standardised teacher scores, and the order of lessons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.contract.encoding import PairEncoder, TokenIds
from service.contract.manifest import TeacherScale
from service.contract.types import RankingExample
from training.data import open_source
from training.label import teacher_name
from training.recipe import DistillRecipe, Labels, RecipeError, TrainSource


@dataclass(frozen=True, slots=True)
class DocumentIds:
    """Token ids of a query's candidates in one array: one each would weigh as much as its ids.

    Attributes:
        flat: All ids, one document after another, [T].
        ends: Where each document ends, [N].
    """

    flat: TokenIds
    ends: NDArray[np.int32]

    @classmethod
    def of(cls, documents: Sequence[TokenIds]) -> DocumentIds:
        """Return the ids of at least one document."""
        ends = np.cumsum([len(ids) for ids in documents], dtype=np.int32)
        return cls(np.concatenate(documents), ends)

    def __getitem__(self, place: int) -> TokenIds:
        start = self.ends[place - 1] if place else 0
        return self.flat[start : self.ends[place]]


@dataclass(frozen=True, slots=True)
class TaughtQuery:
    """A query's token ids with its candidates' ids and standardised teacher scores.

    `answers` is what a language model should write of each candidate, where it learns to.
    """

    query_ids: TokenIds
    document_ids: DocumentIds
    teacher: NDArray[np.floating]  # [N]
    repeat: int
    answers: DocumentIds | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one query that are scored together in a step."""

    query: TaughtQuery
    places: NDArray[np.int64]  # [G] candidates of the query


class Pace(Protocol):
    """What a recipe says of the order of lessons."""

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def group_size(self) -> int: ...  # noqa: D102

    @property
    def groups_per_step(self) -> int: ...  # noqa: D102


class Lessons:
    """The groups of each step, a function of (recipe seed, step) alone."""

    def __init__(self, queries: Sequence[TaughtQuery], recipe: Pace) -> None:
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
            documents = query.document_ids
            yield from (query.query_ids, query.teacher, documents.flat, documents.ends)
            if query.answers is not None:
                yield from (query.answers.flat, query.answers.ends)

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
    raw: dict[str, list[NDArray[np.float64]]] = {}
    queries = []
    for part in recipe.train:
        teacher = _teacher(part)
        for example in open_source(part.source, data):
            scores = np.array(_scores(part, example), dtype=np.float64)
            scores = _places(scores) if part.places else scores
            raw.setdefault(teacher, []).append(scores)
            if len(scores) > 1:
                queries.append((_taught(part, example, scores, encoder), teacher))
    scales = {name: _scale(np.concatenate(values)) for name, values in raw.items()}
    return [_standardised(query, scales[teacher]) for query, teacher in queries], scales


def _taught(
    part: TrainSource,
    example: RankingExample,
    scores: NDArray[np.float64],
    encoder: PairEncoder,
) -> TaughtQuery:
    documents = DocumentIds.of(encoder.encode_documents(example.candidates))
    return TaughtQuery(encoder.encode_query(example.query), documents, scores, part.repeat)


def _standardised(query: TaughtQuery, scale: TeacherScale) -> TaughtQuery:
    teacher = (query.teacher - scale.mean) / scale.std
    return replace(query, teacher=teacher.astype(np.float32))


def _scale(scores: NDArray[np.float64]) -> TeacherScale:
    return TeacherScale(mean=float(scores.mean()), std=float(scores.std()) or 1.0)


def _places(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return n for the best of n candidates down to 1; ties by input order, as rankings are."""
    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores), 0, -1)
    return places


def _teacher(part: TrainSource) -> str:
    if isinstance(part.source, Labels) and part.teacher == "labels":
        return teacher_name(part.source.path)
    return f"grades:{part.source.path}"


def _scores(part: TrainSource, example: RankingExample) -> Sequence[float]:
    scores = example.teacher_scores if part.teacher == "labels" else example.grades
    if scores is None:
        raise RecipeError(f"{_teacher(part)}: query {example.query_id!r} has no score to learn")
    return scores
