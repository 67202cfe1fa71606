"""MS MARCO passages with the queries of its splits and of TREC Deep Learning 2019 and 2020.

| file | columns |
|---|---|
| `collection.tsv` | pid, passage |
| `queries.train.tsv`, `queries.dev.small.tsv`, `msmarco-test20…-queries.tsv` | qid, query |
| `qrels.train.tsv`, `qrels.dev.small.tsv`, `20…qrels-pass.txt` | qid, 0, pid, grade |

Passages have no title: the whole passage is the summary. Grades are 1 for the one or two passages
an annotator marked, 0 to 3 in TREC DL. Train and dev hold no negatives: a recipe's `run` adds a
first stage's documents with grade 0.

Source:
    Bajaj et al. 2016; Craswell et al. 2020 and 2021, TREC Deep Learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.readers.collection import Collection, Judged
from training.readers.tables import Row, read_tsv
from training.readers.trec import read_judgements

FILES = {
    "train": ("queries.train.tsv", "qrels.train.tsv"),
    "dev": ("queries.dev.small.tsv", "qrels.dev.small.tsv"),
    "dl19": ("msmarco-test2019-queries.tsv", "2019qrels-pass.txt"),
    "dl20": ("msmarco-test2020-queries.tsv", "2020qrels-pass.txt"),
}
"""Queries and qrels by subset."""


def passage(row: Row) -> Candidate:
    """Return a row of `collection.tsv` as a document without a title."""
    return Candidate(row["pid"], "", row["passage"])


def _queries(root: Path, subset: str) -> Iterator[tuple[str, str]]:
    for _, row in read_tsv(root / FILES[subset][0], ("qid", "query")):
        yield row["qid"], row["query"]


def _judgements(root: Path, subset: str) -> Iterator[Judged]:
    return read_judgements(root / FILES[subset][1])


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    for _, row in read_tsv(root / "collection.tsv", ("pid", "passage")):
        yield row["pid"], passage(row)


MS_MARCO = Collection(_queries, _judgements, _documents, tuple(FILES))
