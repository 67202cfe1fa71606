"""A published collection: queries, judgements and documents, joined into examples."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from service.contract.types import Candidate, RankingExample
from training.readers.split import part_of, query_hash
from training.readers.tally import Tally
from training.recipe import Part, RecipeError
from training.trec import read_run


@dataclass(frozen=True, slots=True)
class Judged:
    """A query's document with its grade."""

    query_id: str
    document_id: str
    grade: float


@dataclass(frozen=True, slots=True)
class FirstStage:
    """A TREC run whose top documents join the judged ones, with grade 0 where unjudged."""

    run: Path
    depth: int


@dataclass(frozen=True, slots=True)
class Collection:
    """How a data set's own files are read; each function takes the data set's folder and subset.

    Attributes:
        queries: Yields query id and text.
        judgements: Yields grades, in the order in which candidates are to stand.
        documents: Yields document id and candidate; read once, only those judged are kept.
        subsets: Names of its own splits; empty where it has none.
    """

    queries: Callable[[Path, str], Iterable[tuple[str, str]]]
    judgements: Callable[[Path, str], Iterable[Judged]]
    documents: Callable[[Path, str], Iterable[tuple[str, Candidate]]]
    subsets: tuple[str, ...] = ()


def read_collection(
    collection: Collection,
    root: Path,
    subset: str,
    *,
    part: Part | None,
    limit: int | None,
    first_stage: FirstStage | None,
    tally: Tally,
) -> Iterator[RankingExample]:
    """Yield an example a query with the documents it has grades for, by the order of the queries.

    Memory holds the chosen queries, their grades and their documents, not the collection.

    Args:
        collection: How to read it.
        root: Its folder.
        subset: One of its own splits, "" where it has none.
        part: Part of the split by query hash; None: every query.
        limit: Take this many queries, those of the least hash; None: all.
        first_stage: Adds candidates; None: judged documents only.
        tally: Counts what is left out.

    Raises:
        RecipeError: A file cannot be read, or a row is wrong.
    """
    if collection.subsets and subset not in collection.subsets:
        raise RecipeError(f"{root}: subset {subset!r} is none of {', '.join(collection.subsets)}")
    queries, ids = _chosen(root, collection.queries(root, subset), part, limit)
    grades = _grades(collection.judgements(root, subset), queries, ids, tally)
    if first_stage is not None:
        _add(first_stage, grades, queries)
    wanted = {name for judgements in grades.values() for name in judgements}
    documents = {
        name: document for name, document in collection.documents(root, subset) if name in wanted
    }
    for query_id, text in queries.items():
        known = {name: g for name, g in grades.get(query_id, {}).items() if name in documents}
        tally.unknown_documents += len(grades.get(query_id, {})) - len(known)
        example = RankingExample(
            query_id, text, tuple(documents[name] for name in known), tuple(known.values())
        )
        tidy = tally.tidy(example)
        if tidy is not None:
            yield tidy


def _grades(
    judgements: Iterable[Judged], queries: Container[str], ids: Container[str], tally: Tally
) -> dict[str, dict[str, float]]:
    """Return the first grade of each document by query; other rows are counted."""
    grades: dict[str, dict[str, float]] = {}
    for judged in judgements:
        if judged.query_id in queries:
            row = grades.setdefault(judged.query_id, {})
            if judged.document_id in row:
                tally.repeat(other_grade=row[judged.document_id] != judged.grade)
            row.setdefault(judged.document_id, judged.grade)
        elif judged.query_id not in ids:
            tally.unknown_queries += 1
    return grades


def _add(stage: FirstStage, grades: dict[str, dict[str, float]], queries: Container[str]) -> None:
    for query_id, scores in read_run(stage.run).items():
        if query_id in queries:
            row = grades.setdefault(query_id, {})
            for document_id in islice(scores, stage.depth):
                row.setdefault(document_id, 0.0)


def _chosen(
    root: Path, rows: Iterable[tuple[str, str]], part: Part | None, limit: int | None
) -> tuple[dict[str, str], set[str]]:
    """Return the texts of the queries that are taken, by id, and the ids of all."""
    queries: dict[str, str] = {}
    ids = set()
    for query_id, text in rows:
        ids.add(query_id)
        if part is not None and part_of(text) != part:
            continue
        if queries.setdefault(query_id, text) != text:
            raise RecipeError(f"{root}: query {query_id!r} has two texts")
    if limit is not None and limit < len(queries):
        least = set(heapq.nsmallest(limit, queries, key=lambda name: query_hash(queries[name])))
        queries = {query_id: text for query_id, text in queries.items() if query_id in least}
    return queries, ids
