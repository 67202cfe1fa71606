"""The long tail: queries by their words and by how rare these are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.sets import write_corpus, write_tsv
from training.data import read_judged
from training.judged import read_judged_queries
from training.recipe import JudgedSet, RecipeError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    write_corpus(
        folder,
        {"d1": ("Kettle", "boil water"), "d2": "Water, water!", "d3": "the yak and the kettle"},
    )
    write_tsv(
        folder / "queries.tsv", ("q1", "water"), ("q2", "the YAK's kettle"), ("q3", "kettle water")
    )
    write_tsv(folder / "qrels.tsv", *[(f"q{n}", "d1", 1) for n in (1, 2, 3)])
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["q1", "q2", "q3"]),
        ({"words_from": 2}, ["q2", "q3"]),
        ({"words_from": 3}, ["q2"]),
        ({"rarest_to": 2}, ["q1", "q2", "q3"]),
        ({"rarest_to": 1}, ["q2"]),
        ({"rarest_to": 0}, ["q2"]),  # no document has "s"
    ],
)
def test_long_and_rare_queries_are_kept(
    fields: dict[str, int], expected: list[str], data: Path
) -> None:
    source = JudgedSet.model_validate({"path": "set", **fields})
    assert [example.query_id for example in read_judged(source, data)] == expected


def test_a_tail_without_a_query_is_refused(data: Path) -> None:
    with pytest.raises(RecipeError, match="no query"):
        read_judged(JudgedSet(path="set", words_from=9), data)


def test_a_tail_has_a_name_of_its_own_in_reports(data: Path) -> None:
    names = [
        read_judged_queries(JudgedSet.model_validate({"path": "set", **fields}), data).name
        for fields in ({}, {"words_from": 2}, {"words_from": 2, "rarest_to": 1})
    ]
    assert names == ["set", "set words from 2", "set words from 2 rarest to 1"]
