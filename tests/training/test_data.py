"""Readers, on files written by the test."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from service.contract.types import Candidate, RankingExample
from tests.training.sets import write_small_set, write_tsv
from training.corpus import read_corpus
from training.data import ideal_grades, read_judged, read_source
from training.readers.split import part_of
from training.recipe import JudgedSet, Labels, Part, RecipeError

PARTS: tuple[Part, ...] = get_args(Part)
SMALL = JudgedSet(path="small")


def names(example: RankingExample) -> list[str | None]:
    return [candidate.id for candidate in example.candidates]


def test_judged_documents_come_with_their_grades_in_the_order_of_the_files(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    assert read_source(SMALL, tmp_path) == [
        RankingExample(
            "q2", "capital of france", (Candidate("d2", "", "the capital of France"),), (2.5,)
        ),
        RankingExample(
            "q1",
            "boil water",
            (
                Candidate("d2", "", "the capital of France"),
                Candidate("d1", "Kettle", "boil water in a kettle"),
            ),
            (0.0, 3.0),
        ),
    ]


def test_documents_without_text_are_dropped_unless_wanted(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    (_, kept) = read_judged(SMALL.model_copy(update={"drop_textless": False}), tmp_path)
    assert names(kept) == ["d2", "d1", "d3"]
    assert kept.grades == (0.0, 3.0, 1.0)


def test_a_split_keeps_its_queries_only(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path)
    (example,) = read_judged(JudgedSet(path="small", split="train"), tmp_path)
    assert example.query_id == "q1"
    write_tsv(folder / "mine.tsv", ("q2", "train"))
    mine = JudgedSet(path="small", split="train", split_file="mine.tsv")
    assert [example.query_id for example in read_judged(mine, tmp_path)] == ["q2"]


def test_a_part_keeps_the_queries_whose_hash_is_in_it(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    kept = {}
    for part in PARTS:
        with suppress(RecipeError):
            found = read_judged(JudgedSet(path="small", part=part), tmp_path)
            kept[part] = [example.query for example in found]
    every = [query for queries in kept.values() for query in queries]
    assert sorted(every) == ["boil water", "capital of france"]
    assert all(part_of(query) == part for part, queries in kept.items() for query in queries)
    (empty, *_) = set(PARTS) - set(kept)
    with pytest.raises(RecipeError, match=f"no query in part '{empty}' has a candidate"):
        read_judged(JudgedSet(path="small", part=empty), tmp_path)


def test_a_split_without_queries_is_refused(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    with pytest.raises(RecipeError, match="no query of split 'test' has a candidate"):
        read_judged(JudgedSet(path="small", split="test"), tmp_path)


def test_a_run_gives_the_candidates_by_rank_down_to_the_depth(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path)
    rows = [("q1", "d4", "BM25", 3), ("q1", "d1", "BM25", 1), ("q1", "gone", "BM25", 2)]
    rows += [("q1", "d2", "dense", 1), ("q2", "d1", "BM25", 10), ("q1", "d2", "BM25", 11)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    with gzip.open(folder / "runs.tsv.gz", "wt", encoding="utf-8") as stream:
        stream.write(text)
    source = JudgedSet(path="small", runs="runs.tsv.gz", retriever="BM25", depth=10)
    second, first = read_judged(source, tmp_path)
    assert (first.query_id, names(first), first.grades) == ("q1", ["d1", "d4"], (3.0, 0.0))
    assert (second.query_id, names(second), second.grades) == ("q2", ["d1"], (0.0,))
    shallow = source.model_copy(update={"depth": 1})
    assert [names(example) for example in read_judged(shallow, tmp_path)] == [["d1"]]


def test_a_file_of_several_runs_needs_a_retriever(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path)
    write_tsv(folder / "runs.tsv", ("q1", "d1", "BM25", 1), ("q1", "d1", "dense", 1))
    with pytest.raises(RecipeError, match=r"runs of \['BM25', 'dense'\]"):
        read_judged(JudgedSet(path="small", runs="runs.tsv"), tmp_path)


def test_the_ideal_ranking_is_drawn_from_all_judgements(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path)
    assert ideal_grades(SMALL, tmp_path) == {"q1": [0, 3, 1], "q2": [2.5, 1]}
    write_tsv(folder / "all.tsv", ("q1", "d9", 7))
    other = JudgedSet(path="small", ideal_qrels="all.tsv")
    assert ideal_grades(other, tmp_path) == {"q1": [7]}


def test_blank_lines_are_skipped_and_null_titles_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('\n{"id": 7, "title": null, "text": "x\\u2028y"}\n\n', encoding="utf-8")
    assert read_corpus(path) == {"7": Candidate("7", "", "x\u2028y")}


BAD_LINES = {
    "corpus.jsonl.gz": [
        '{"id": "a"',
        "[1]",
        '{"title": "no id"}',
        '{"id": "a", "title": 5}',
        '{"id": "a", "text": ["x"]}',
        "5",
    ],
    "queries.tsv": ["q1 without a tab"],
    "qrels.tsv": ["q1\td1", "q1\td1\tgood", "q1\td1\tnan", "q1\td1\tinf"],
    "splits.tsv": ["q1"],
    "runs.tsv": ["q1\td1\tBM25", "q1\td1\tBM25\tfirst"],
}


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in BAD_LINES.items() for line in lines]
)
def test_a_bad_line_is_named_by_file_and_number(name: str, line: str, tmp_path: Path) -> None:
    path = write_small_set(tmp_path) / name
    write_tsv(path.with_name("runs.tsv"), ("q1", "d1", "BM25", 1))
    if path.suffix == ".gz":
        with gzip.open(path, "at", encoding="utf-8") as stream:
            stream.write(line + "\n")
        number = 5
    else:
        number = len(path.read_text(encoding="utf-8").splitlines()) + 1
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    source = JudgedSet(path="small", split="train", runs="runs.tsv")
    with pytest.raises(RecipeError) as caught:
        read_judged(source, tmp_path)
    assert str(caught.value).startswith(f"{path}:{number}: ")


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "queries.tsv", "qrels.tsv", "splits.tsv"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    path = write_small_set(tmp_path) / name
    path.unlink()
    with pytest.raises(RecipeError) as caught:
        read_judged(JudgedSet(path="small", split="train"), tmp_path)
    assert str(caught.value) == f"{path}: no such file; is --data right?"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.tsv", b"q1\tcaf\xe9\n"),
        ("corpus.jsonl.gz", gzip.compress(b'{"id": "\xff"}\n')),
        ("corpus.jsonl.gz", gzip.compress(b'{"id": "a"}\n' * 99)[:-12]),
        ("corpus.jsonl.gz", gzip.compress(b"x")[:10] + b"\xff" * 30),
        ("corpus.jsonl.gz", b"no gzip\n"),
    ],
    ids=["latin-1", "gzipped non-UTF-8", "cut gzip", "damaged gzip", "no gzip"],
)
def test_unreadable_bytes_are_refused_by_file(name: str, content: bytes, tmp_path: Path) -> None:
    path = write_small_set(tmp_path) / name
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_judged(SMALL, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_labels_that_are_not_finished_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no finished labels here"):
        read_source(Labels(path=tmp_path), tmp_path)
