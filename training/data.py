"""Readers of judged sets, label shards and queries: files to `RankingExample`s."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from training.recipe import JudgedSet, Labels, RecipeError, Retrieved, Source

Corpus = dict[str, Candidate]
Qrels = dict[str, dict[str, float]]


def read_source(source: Source, data: Path) -> list[RankingExample]:
    """Return the examples of a recipe's source.

    Args:
        source: What the recipe names.
        data: The folder that judged sets and queries are relative to.

    Raises:
        RecipeError: A file is missing or a line of it cannot be read.
    """
    match source:
        case JudgedSet():
            return read_judged(source, data)
        case Labels():
            return read_labels(source.path)
        case Retrieved():
            return retrieve(source, data)


def read_judged(source: JudgedSet, data: Path) -> list[RankingExample]:
    """Return one example per query with a judged candidate, in the order of `queries.tsv`."""
    root = data / source.path
    queries = read_queries(root / "queries.tsv")
    corpus = read_corpus(root / "corpus.jsonl.gz")
    qrels = read_qrels(root / source.qrels)
    if source.split is not None:
        keep = {row[0] for row in _rows(root / source.split_file, 2) if row[1] == source.split}
        queries = {query_id: text for query_id, text in queries.items() if query_id in keep}
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
        raise RecipeError(f"{root}: no query of split {source.split!r} has a candidate")
    return examples


def ideal_grades(source: JudgedSet, data: Path) -> dict[str, list[float]]:
    """Return the grades of every judged document of each query, for the ideal ranking."""
    qrels = read_qrels(data / source.path / (source.ideal_qrels or source.qrels))
    return {query_id: list(grades.values()) for query_id, grades in qrels.items()}


def read_labels(folder: Path) -> list[RankingExample]:
    """Return the examples of a label folder, in the order they were scored.

    Raises:
        RecipeError: The folder is no finished label folder.
    """
    import pyarrow.parquet as pq

    if not (folder / "labels.json").is_file():
        raise RecipeError(f"{folder}: no finished labels here; run `training label` to its end")
    examples = []
    for shard in sorted(folder.glob("part-*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            candidates = tuple(Candidate(**document) for document in row["candidates"])
            grades = None if row["grades"] is None else tuple(row["grades"])
            examples.append(
                RankingExample(
                    row["query_id"],
                    row["query"],
                    candidates,
                    grades,
                    tuple(row["teacher_scores"]),
                )
            )
    return examples


def retrieve(source: Retrieved, data: Path) -> list[RankingExample]:
    """Return each query with BM25's top documents and random ones, drawn by the query's hash."""
    import bm25s

    queries = sorted(
        read_queries(data / source.queries).items(), key=lambda row: stable_hash(row[1])
    )
    queries = queries[: source.limit]
    documents = [
        document
        for name in source.corpora
        for document in read_corpus(data / name / "corpus.jsonl.gz").values()
        if document_text(document).strip()
    ]
    index = bm25s.BM25()
    texts = [document_text(document) for document in documents]
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    tokens = bm25s.tokenize([text for _, text in queries], show_progress=False)
    tops, _ = index.retrieve(tokens, k=min(source.top, len(documents)), show_progress=False)
    examples = []
    for (query_id, query), top in zip(queries, tops, strict=True):
        extra = np.random.default_rng(stable_hash(query)).integers(
            len(documents), size=source.random
        )
        chosen = dict.fromkeys([*top.tolist(), *extra.tolist()])
        examples.append(
            RankingExample(query_id, query, tuple(documents[place] for place in chosen))
        )
    return examples


def stable_hash(text: str) -> int:
    """Return a 64-bit hash of a text that is the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def read_corpus(path: Path) -> Corpus:
    """Return the documents of a `corpus.jsonl.gz` by id."""
    corpus = {}
    for where, line in _lines(path):
        try:
            fields: dict[str, Any] = json.loads(line)
            name = str(fields["id"])
            corpus[name] = Candidate(name, fields.get("title") or "", fields.get("text") or "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"{where}: not a document: {error!r}") from None
    return corpus


def read_queries(path: Path) -> dict[str, str]:
    """Return the texts of a `queries.tsv` by query id."""
    return {row[0]: row[1] for row in _rows(path, 2)}


def read_qrels(path: Path) -> Qrels:
    """Return the grades of a `qrels.tsv`: query id to document id to grade."""
    qrels: Qrels = defaultdict(dict)
    for row in _rows(path, 3):
        try:
            qrels[row[0]][row[1]] = float(row[2])
        except ValueError:
            raise RecipeError(f"{path}: grade {row[2]!r} of query {row[0]} is no number") from None
    return dict(qrels)


def _read_run(path: Path, retriever: str | None, depth: int) -> dict[str, list[str]]:
    ranked: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for query_id, document_id, name, rank in _rows(path, 4):
        if retriever in (None, name) and int(rank) <= depth:
            ranked[query_id].append((int(rank), document_id))
    return {query_id: [name for _, name in sorted(rows)] for query_id, rows in ranked.items()}


def _rows(path: Path, columns: int) -> Iterator[list[str]]:
    for where, line in _lines(path):
        row = line.split("\t")
        if len(row) < columns:
            raise RecipeError(f"{where}: {len(row)} columns, expected {columns}")
        yield row[:columns]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (file:line, text) of a plain or gzipped UTF-8 file, blank lines left out."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as stream
        ):
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\n")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; is --data right?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from None
