"""Readers of judged sets, label shards and queries: files to `RankingExample`s."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from service.contract.template import document_text
from service.contract.types import RankingExample
from training.corpus import read_corpus
from training.hashing import sha256_of
from training.lines import finite, read_rows
from training.readers.rows import ExamplesFile, iter_parquet
from training.readers.sources import read_published
from training.readers.split import part_of, query_hash
from training.readers.tail import tail_of
from training.recipe import (
    Examples,
    JudgedSet,
    Labels,
    Published,
    RecipeError,
    Retrieved,
    Source,
)

EXAMPLES = "examples.jsonl"
"""What `training retrieve` writes to its folder."""

Qrels = dict[str, dict[str, float]]


def read_source(source: Source, data: Path) -> list[RankingExample]:
    """Return the examples of a recipe's source.

    Args:
        source: What the recipe names.
        data: The folder that judged sets and queries are relative to.

    Raises:
        RecipeError: A file is missing or a line of it cannot be read.
    """
    return [*open_source(source, data)]


def open_source(source: Source, data: Path) -> Iterable[RankingExample]:
    """Return the examples of a recipe's source, to be gone through as often as wanted.

    Labels and files of examples are read anew each time, an example in memory at a time; the other
    sources have to hold their documents.

    Raises:
        RecipeError: A file is missing or a line of it cannot be read; of what is read later, while
            it is gone through.
    """
    match source:
        case JudgedSet():
            return read_judged(source, data)
        case Labels():
            return LabelFolder(source.path, limit=source.limit)
        case Retrieved():
            return ExamplesFile(Examples(path=str(source.path.absolute() / EXAMPLES)), data)
        case Examples():
            return ExamplesFile(source, data)
        case Published():
            return read_published(source, data)


def read_judged(source: JudgedSet, data: Path) -> list[RankingExample]:
    """Return one example per query with a judged candidate, in the order of `queries.tsv`."""
    root = data / source.path
    queries = read_queries(root / "queries.tsv")
    corpus = read_corpus(root / "corpus.jsonl.gz")
    qrels = read_qrels(root / source.qrels)
    if source.split is not None:
        rows = read_rows(root / source.split_file, 2)
        keep = {query_id for _, (query_id, split) in rows if split == source.split}
        queries = {query_id: text for query_id, text in queries.items() if query_id in keep}
    if source.part is not None:
        queries = {
            query_id: text for query_id, text in queries.items() if part_of(text) == source.part
        }
    queries = tail_of(queries, corpus, source)
    pools = (
        {query_id: list(grades) for query_id, grades in qrels.items()}
        if source.runs is None
        else _read_run(root / source.runs, source.retriever, source.depth)
    )
    examples = []
    for query_id, query in queries.items():
        documents = [
            name
            for name in pools.get(query_id, [])
            if name in corpus
            and not (source.drop_textless and not document_text(corpus[name]).strip())
        ]
        if documents:
            grades = tuple(qrels.get(query_id, {}).get(name, 0.0) for name in documents)
            candidates = tuple(corpus[name] for name in documents)
            examples.append(RankingExample(query_id, query, candidates, grades))
    if not examples:
        raise RecipeError(f"{root}: no query{_of(source)} has a candidate")
    return examples


def _of(source: JudgedSet) -> str:
    split = "" if source.split is None else f" of split {source.split!r}"
    return split + ("" if source.part is None else f" in part {source.part!r}")


def ideal_grades(source: JudgedSet, data: Path) -> dict[str, list[float]]:
    """Return the grades of every judged document of each query, for the ideal ranking."""
    qrels = read_qrels(data / source.path / (source.ideal_qrels or source.qrels))
    return {query_id: list(grades.values()) for query_id, grades in qrels.items()}


def read_labels(folder: Path) -> list[RankingExample]:
    """Return the examples of a label folder, in the order they were scored.

    Raises:
        RecipeError: The folder is no finished label folder, or has lost or damaged a shard since.
    """
    return [*LabelFolder(folder)]


class LabelFolder:
    """The examples of a label folder, in the order they were scored; a shard is read at a time."""

    def __init__(self, folder: Path, *, limit: int | None = None) -> None:
        """Look at a folder.

        Args:
            folder: Of labels.
            limit: Take this many queries, those of the least hash; None: all.

        Raises:
            RecipeError: It is no finished label folder.
        """
        self._folder = folder
        self._limit = limit
        try:
            self._digests = json.loads((folder / "labels.json").read_text(encoding="utf-8"))[
                "shards"
            ]
        except (OSError, ValueError, KeyError):
            raise RecipeError(
                f"{folder}: no finished labels here; run `training label` to its end"
            ) from None

    def __iter__(self) -> Iterator[RankingExample]:
        """Yield the examples.

        Raises:
            RecipeError: A shard was lost or damaged since it was written.
        """
        largest = self._largest_hash()
        for path in self.paths():
            for example in iter_parquet(path):
                if largest is None or query_hash(example.query) <= largest:
                    yield example

    def _largest_hash(self) -> int | None:
        if self._limit is None:
            return None
        hashes = (query_hash(query) for path in self.paths() for query in _queries(path))
        return max(heapq.nsmallest(self._limit, hashes))

    def paths(self) -> Iterator[Path]:
        """Yield the shards' files, each checked when its turn comes.

        Raises:
            RecipeError: A shard was lost or damaged since it was written.
        """
        for name, digest in self._digests.items():
            shard = self._folder / name
            if not shard.is_file() or sha256_of(shard) != digest:
                raise RecipeError(
                    f"{shard}: lost or changed since it was written; remove it, and "
                    "`training label` makes it again"
                )
            yield shard


def _queries(shard: Path) -> Iterator[str]:
    yield from pq.read_table(shard, columns=["query"])["query"].to_pylist()


def read_queries(path: Path) -> dict[str, str]:
    """Return the texts of a `queries.tsv` by query id."""
    return {query_id: text for _, (query_id, text) in read_rows(path, 2)}


def read_qrels(path: Path) -> Qrels:
    """Return the grades of a `qrels.tsv`: query id to document id to grade."""
    qrels: Qrels = defaultdict(dict)
    for where, (query_id, document_id, grade) in read_rows(path, 3):
        qrels[query_id][document_id] = finite(where, "grade", grade)
    return dict(qrels)


def _read_run(path: Path, retriever: str | None, depth: int) -> dict[str, list[str]]:
    ranked: dict[str, list[tuple[float, str]]] = defaultdict(list)
    retrievers = set()
    for where, (query_id, document_id, name, text) in read_rows(path, 4):
        rank = finite(where, "rank", text)
        retrievers.add(name)
        if retriever in (None, name) and rank <= depth:
            ranked[query_id].append((rank, document_id))
    if retriever is None and len(retrievers) > 1:
        raise RecipeError(f"{path}: runs of {sorted(retrievers)}; choose one as `retriever`")
    return {query_id: [name for _, name in sorted(rows)] for query_id, rows in ranked.items()}
