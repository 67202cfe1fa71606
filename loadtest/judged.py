"""Requests from a folder of judged sets: real queries with the documents retrieved for them."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.lengths import Kind
from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample

SETS: dict[Kind, str] = {"web": "mwmbl_web_llm", "passage": "trec_dl19_passage"}


class DataError(Exception):
    """A data folder that cannot be used; the message says which file and why."""


class JudgedFolder:
    """Real requests: a query of a set, and documents judged for it."""

    def __init__(self, folder: Path) -> None:
        """Read the sets that are there: `mwmbl_web_llm`, `trec_dl19_passage`.

        Raises:
            DataError: There is neither, or a file of one cannot be read.
        """
        self._sets = {
            kind: _read_set(folder / name)
            for kind, name in SETS.items()
            if (folder / name).is_dir()
        }
        if not self._sets:
            raise DataError(f"{folder}: no {' and no '.join(SETS.values())}")

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of request that the folder has a set for."""
        return frozenset(self._sets)

    def requests(self, kind: Kind, *, candidates: int = 48) -> Iterator[RankingExample]:
        """Yield distinct requests: each query in turn with the next of its documents.

        A query with fewer documents left than candidates asked for is filled up with those of the
        queries after it. Ends when each query has been asked with all its documents.
        """
        queries = self._sets[kind]
        flat = [document for judged in queries for document in judged.documents]
        starts = list(itertools.accumulate((len(j.documents) for j in queries), initial=0))
        longest = max(len(judged.documents) for judged in queries)
        for block in range(0, longest, candidates):
            for judged, start in zip(queries, starts, strict=False):
                if block < len(judged.documents):
                    documents = _distinct(flat, start + block, candidates)
                    yield RankingExample(f"{judged.id}+{block}", judged.query, documents)


@dataclass(frozen=True, slots=True)
class _Judged:
    id: str
    query: str
    documents: tuple[Candidate, ...]


def _distinct(flat: Sequence[Candidate], start: int, count: int) -> tuple[Candidate, ...]:
    """Return so many documents from a place on, going round, none twice."""
    found: dict[str | None, Candidate] = {}
    for candidate in itertools.chain(flat[start:], flat[:start]):
        found.setdefault(candidate.id, candidate)
        if len(found) == count:
            break
    return tuple(found.values())


def _read_set(folder: Path) -> list[_Judged]:
    try:
        corpus = _read_corpus(folder / "corpus.jsonl.gz")
        queries = dict(_read_table(folder / "queries.tsv"))
        documents: dict[str, dict[str, Candidate]] = {query: {} for query in queries}
        for query, document, *_ in _read_table(folder / "qrels.tsv"):
            if query in queries and document in corpus:
                documents[query][document] = corpus[document]
    except OSError as error:
        raise DataError(str(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: {error!r}") from None
    judged = [_Judged(q, queries[q], tuple(found.values())) for q, found in documents.items()]
    if not any(entry.documents for entry in judged):
        raise DataError(f"{folder}: no query has a document")
    return [entry for entry in judged if entry.documents]


def _read_corpus(path: Path) -> dict[str, Candidate]:
    """Return the documents that have any text, by id."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = (Candidate(row["id"], row.get("title", ""), row["text"]) for row in rows)
    return {str(candidate.id): candidate for candidate in found if document_text(candidate)}


def _read_table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
