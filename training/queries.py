"""Queries without judgements: of files, of judged sets, and made of documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS

from service.contract.types import Candidate
from training.corpus import read_corpus
from training.hashing import stable_hash
from training.lines import read_rows
from training.readers.split import query_hash
from training.retrieval_recipe import InventedQueries, JudgedQueries, QueryFile, QuerySource

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
FIRST_WORDS = 16
"""Words of a text that stand for its first sentence at most."""

PHRASE_WORDS = (2, 5)
STOP_WORDS = frozenset(STOPWORDS_EN_PLUS)


def read_queries_of(source: QuerySource, data: Path) -> list[str]:
    """Return the source's distinct queries, in the order of their hashes.

    Raises:
        RecipeError: A file cannot be read.
    """
    distinct = {query_hash(query): query for query in reversed(list(_read(source, data)))}
    ordered = [query for _, query in sorted(distinct.items())]
    return ordered[: source.limit]


def _read(source: QuerySource, data: Path) -> Iterator[str]:
    match source:
        case QueryFile():
            rows = read_rows(data / source.path, source.columns)
            texts: Iterable[str] = (row[-1] for _, row in rows)
        case JudgedQueries():
            texts = judged_queries(source, data)
        case InventedQueries():
            texts = _invented(source, data)
    return (text.strip() for text in texts if WORD.search(text))


def judged_queries(source: JudgedQueries, data: Path) -> list[str]:
    """Return the texts of a judged set's queries.

    Raises:
        RecipeError: A file cannot be read.
    """
    root = data / source.path
    rows = [row for _, row in read_rows(root / "queries.tsv", 2)]
    if source.split is None:
        return [text for _, text in rows]
    splits = [row for _, row in read_rows(root / source.split_file, 2)]
    keep = {query_id for query_id, split in splits if split == source.split}
    return [text for query_id, text in rows if query_id in keep]


def _invented(source: InventedQueries, data: Path) -> Iterator[str]:
    for name in source.corpora:
        for document in read_corpus(data / name / "corpus.jsonl.gz").values():
            query = invent(document, source.form)
            if query:
                yield query


def invent(document: Candidate, form: str) -> str:
    """Return a query of a form that the document would answer; "" where it has no words for it."""
    match form:
        case "title":
            return document.title
        case "question":
            return f"what is {document.title}" if document.title.strip() else ""
        case "sentence":
            words = re.split(r"[.!?]\s", document.summary, maxsplit=1)[0].split()
            return " ".join(words[:FIRST_WORDS]) if len(words) > 2 else ""
        case _:
            return _phrase(document)


def _phrase(document: Candidate) -> str:
    """Return a run of content words of the document, drawn by its text's hash."""
    runs: list[list[str]] = [[]]
    for word in WORD.findall(document.summary or document.title):
        if word.casefold() in STOP_WORDS:
            runs.append([])
        else:
            runs[-1].append(word)
    least, most = PHRASE_WORDS
    runs = [run for run in runs if len(run) >= least]
    if not runs:
        return ""
    rng = np.random.default_rng(stable_hash(document.summary))
    run = runs[rng.integers(len(runs))]
    length = int(rng.integers(least, min(most, len(run)) + 1))
    start = int(rng.integers(len(run) - length + 1))
    return " ".join(run[start : start + length]).casefold()
