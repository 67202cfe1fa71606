"""ORCAS: clicks of Bing's users on MS MARCO documents.

| file | columns |
|---|---|
| `orcas.tsv` | QID, Q, DID, U |
| `msmarco-docs.tsv` | docid, url, title, body |

A click is grade 1. There are no negatives: a recipe's `run` adds a first stage's documents with
grade 0. Title is the document's, summary its body, of which a ranker reads the beginning.

Source:
    Craswell et al. 2020, arXiv:2006.05324.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.readers.collection import Collection, Judged
from training.readers.tables import Row, read_tsv

CLICKS = ("QID", "Q", "DID", "U")
DOCUMENTS = ("docid", "url", "title", "body")


def document(row: Row) -> Candidate:
    """Return a row of `msmarco-docs.tsv` as a document; a title of "." says that it has none."""
    title = "" if row["title"].strip() == "." else row["title"]
    return Candidate(row["docid"], title, row["body"])


def _queries(root: Path, _: str) -> Iterator[tuple[str, str]]:
    for _, row in read_tsv(root / "orcas.tsv", CLICKS):
        yield row["QID"], row["Q"]


def _judgements(root: Path, _: str) -> Iterator[Judged]:
    for _, row in read_tsv(root / "orcas.tsv", CLICKS):
        yield Judged(row["QID"], row["DID"], 1.0)


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    for _, row in read_tsv(root / "msmarco-docs.tsv", DOCUMENTS):
        yield row["docid"], document(row)


ORCAS = Collection(_queries, _judgements, _documents)
