"""TREC files: runs, qrels and topics, as trec_eval and ir_measures read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from training.lines import finite, read_lines
from training.recipe import RecipeError

Run = dict[str, dict[str, float]]
"""Scores by query id and document id, each query's documents from best to worst."""

Qrels = dict[str, dict[str, float]]
"""Grades by query id and document id."""

_TOPIC_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TOPIC_TITLE = re.compile(r"<(?:title|query)>\s*(?:Topic:)?([^<]*)", re.IGNORECASE)


def read_run(path: Path) -> Run:
    """Return a run: `query Q0 document rank score tag` a line.

    The order is the score's, descending, ties in the order of the file; the rank column is not
    read, as trec_eval does not read it.

    Raises:
        RecipeError: A line has another form or repeats a document; file and line are named.
    """
    run: Run = {}
    for where, (query_id, _, document_id, _, score, _) in _fields(path, 6):
        scores = run.setdefault(query_id, {})
        if document_id in scores:
            raise RecipeError(f"{where}: document {document_id!r} again for query {query_id!r}")
        scores[document_id] = finite(where, "score", score)
    return {
        query_id: dict(sorted(scores.items(), key=lambda row: -row[1]))
        for query_id, scores in run.items()
    }


def write_run(path: Path, ranked: Mapping[str, Sequence[str]], *, tag: str) -> None:
    """Write each query's document ids, best first, with score = n - rank.

    trec_eval orders equal scores by document id; with these there are none, so that the contract's
    order (ties by input order) is the one it judges.

    Raises:
        RecipeError: A name is empty, holds white space or is there twice.
    """
    lines = []
    for query_id, documents in ranked.items():
        if len(set(documents)) < len(documents):
            raise RecipeError(f"{path}: query {query_id!r} has a document id twice")
        for rank, document_id in enumerate(documents, start=1):
            score = len(documents) - rank
            names = f"{_word(path, query_id)} Q0 {_word(path, document_id)}"
            lines.append(f"{names} {rank} {score} {_word(path, tag)}\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_trec_qrels(path: Path) -> Qrels:
    """Return qrels: `query iteration document grade` a line.

    Raises:
        RecipeError: A line has another form; file and line are named.
    """
    qrels: Qrels = {}
    for where, (query_id, _, document_id, grade) in _fields(path, 4):
        qrels.setdefault(query_id, {})[document_id] = finite(where, "grade", grade)
    return qrels


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, float]]) -> None:
    """Write grades as qrels.

    Raises:
        RecipeError: A grade is no whole number, which trec_eval would cut, or a name is no word.
    """
    lines = []
    for query_id, grades in qrels.items():
        for document_id, grade in grades.items():
            if grade != int(grade):
                raise RecipeError(
                    f"{path}: query {query_id!r}, document {document_id!r}: "
                    f"grade {grade} is no whole number, as TREC qrels want"
                )
            lines.append(f"{_word(path, query_id)} 0 {_word(path, document_id)} {int(grade)}\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_topics(path: Path) -> dict[str, str]:
    """Return query texts by id, of `id<TAB>text` lines or of `<top>` blocks with num and title.

    Raises:
        RecipeError: A line or block has neither form, or an id is there twice.
    """
    topics: dict[str, str] = {}
    for where, query_id, text in _topics(path):
        if query_id in topics:
            raise RecipeError(f"{where}: query {query_id!r} again")
        topics[query_id] = text
    return topics


def _topics(path: Path) -> Iterable[tuple[str, str, str]]:
    block: list[str] = []
    for where, line in read_lines(path):
        if block or line.lstrip().lower().startswith("<top>"):
            block.append(line)
            if "</top>" in line.lower():
                yield (where, *_topic(where, " ".join(block)))
                block = []
            continue
        query_id, tab, text = line.partition("\t")
        if not tab:
            raise RecipeError(f"{where}: no topic: neither id<TAB>text nor <top>")
        yield where, query_id.strip(), text.strip()
    if block:
        raise RecipeError(f"{path}: the last <top> is not closed")


def _topic(where: str, block: str) -> tuple[str, str]:
    number, title = _TOPIC_NUMBER.search(block), _TOPIC_TITLE.search(block)
    if number is None or title is None:
        raise RecipeError(f"{where}: a <top> without <num> or <title>")
    return number.group(1), " ".join(title.group(1).split())


def _fields(path: Path, count: int) -> Iterable[tuple[str, list[str]]]:
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != count:
            raise RecipeError(f"{where}: {len(fields)} fields, expected {count}")
        yield where, fields


def _word(path: Path, name: str) -> str:
    if not name or name.split() != [name]:
        raise RecipeError(f"{path}: {name!r} is no name TREC files can hold: empty or with spaces")
    return name
