"""A collection in TREC's own files, and what other readers share of them.

| file | form |
|---|---|
| `topics.txt` | `id<TAB>text` lines, or `<top>` blocks with num and title |
| `qrels.txt` | query, iteration, document, grade |
| `corpus.jsonl.gz` | `{"id", "title", "text"}` a line, as in a judged set |
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.corpus import read_corpus
from training.lines import finite, read_lines
from training.readers.collection import Collection, Judged
from training.recipe import RecipeError
from training.trec import read_topics


def read_judgements(path: Path) -> Iterator[Judged]:
    """Yield the rows of a qrels file, one at a time.

    Raises:
        RecipeError: A row has another form; file and line are named.
    """
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise RecipeError(f"{where}: {len(fields)} fields, expected 4")
        query_id, _, document_id, grade = fields
        yield Judged(query_id, document_id, finite(where, "grade", grade))


def _queries(root: Path, _: str) -> Iterator[tuple[str, str]]:
    yield from read_topics(root / "topics.txt").items()


def _judgements(root: Path, _: str) -> Iterator[Judged]:
    return read_judgements(root / "qrels.txt")


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    yield from read_corpus(root / "corpus.jsonl.gz").items()


TREC = Collection(_queries, _judgements, _documents)
