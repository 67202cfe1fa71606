"""Judged sets written by the tests, in the layout of real ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path


def write_corpus(folder: Path, documents: Mapping[str, str | tuple[str, str]]) -> None:
    """Write `corpus.jsonl.gz`; a document is its text, or its title and text."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as stream:
        for name, document in documents.items():
            title, text = ("", document) if isinstance(document, str) else document
            stream.write(json.dumps({"id": name, "title": title, "text": text}) + "\n")


def write_tsv(path: Path, *rows: tuple[object, ...]) -> None:
    """Write a tab-separated file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def write_small_set(root: Path) -> Path:
    """Write the set `small`: two queries, four documents, one of these without any text."""
    folder = root / "small"
    write_corpus(
        folder,
        {
            "d1": ("Kettle", "boil water in a kettle"),
            "d2": "the capital of France",
            "d3": ("", " "),
            "d4": ("A dog", ""),
        },
    )
    write_tsv(folder / "queries.tsv", ("q2", "capital of france"), ("q1", "boil water"))
    write_tsv(
        folder / "qrels.tsv",
        *[("q1", "d2", 0), ("q1", "d1", 3), ("q1", "d3", 1), ("q2", "d2", 2.5)],
        ("q2", "gone", 1),
    )
    write_tsv(folder / "splits.tsv", ("q1", "train"), ("q2", "val"))
    return folder
