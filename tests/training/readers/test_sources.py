"""Splits by query and the count of what is left out, over JSON Lines and TREC files."""

from __future__ import annotations

import gzip
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.examples import write_examples
from service.contract.types import Candidate, RankingExample
from tests.training.readers.files import write_lines, write_trec
from training.__main__ import main
from training.data import open_source, read_source
from training.readers.split import normalised, part_of
from training.readers.tally import Tally
from training.recipe import Examples, Part, Published, RecipeError

PARTS: tuple[Part, ...] = ("train", "val", "test")


def example(query_id: str, query: str, *texts: str) -> RankingExample:
    candidates = tuple(Candidate(f"{query_id}-{n}", "", text) for n, text in enumerate(texts))
    return RankingExample(query_id, query, candidates, tuple(map(float, range(len(texts)))))


def test_no_query_is_in_two_parts_whatever_its_id_set_or_spelling(tmp_path: Path) -> None:
    texts = [f"how does number {number} work" for number in range(400)]
    rows = [example(f"a{n}", text, "x", "y") for n, text in enumerate(texts)]
    rows += [example(f"b{n}", f"  {text.upper()} ", "z") for n, text in enumerate(texts)]
    write_examples(tmp_path / "x.jsonl", rows)
    topics = {f"c{n}": text.replace(" ", "   ") for n, text in enumerate(texts)}
    write_trec(tmp_path / "trec", topics, [(name, "d", 1.0) for name in topics])
    where: dict[str, set[Part]] = {}
    counts = dict.fromkeys(PARTS, 0)
    for part in PARTS:
        found = [
            *read_source(Examples(path="x.jsonl", part=part), tmp_path),
            *read_source(Published(dataset="trec", path="trec", part=part), tmp_path),
        ]
        counts[part] = len(found)
        for row in found:
            where.setdefault(normalised(row.query), set()).add(part)
    assert len(where) == 400
    assert all(len(parts) == 1 for parts in where.values())
    assert sum(counts.values()) == 1200  # and none is lost
    assert 1000 < counts["train"] < 1150


@given(st.text())
def test_every_text_has_a_part_and_spacing_does_not_change_it(query: str) -> None:
    assert part_of(query) in PARTS
    assert part_of(f"\t {query}  ") == part_of(query)


def test_the_shares_of_the_parts_are_kept() -> None:
    parts = [part_of(f"query {number}") for number in range(20_000)]
    shares = {part: parts.count(part) / len(parts) for part in PARTS}
    assert shares["train"] == pytest.approx(0.90, abs=0.01)
    assert shares["val"] == pytest.approx(0.05, abs=0.005)


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        example("1", "boil water", "a kettle", "", "a kettle", "long " * 300),
        example("2", "Boil  water", "a kettle", "a pot"),  # the same query and document, again
        example("3", " ", "a document without a query"),
    ]
    write_examples(tmp_path / "x.jsonl", rows)
    first, second = read_source(Examples(path="x.jsonl"), tmp_path)
    assert [candidate.id for candidate in first.candidates] == ["1-0", "1-3"]
    assert first.grades == (0.0, 3.0)
    assert [candidate.id for candidate in second.candidates] == ["2-1"]
    assert capsys.readouterr().err.strip() == (
        "x.jsonl: 7 rows; left out 2 empty, 2 duplicates (1 with another grade), 0 of unknown "
        "queries, 0 of unknown documents; kept 1 of over 256 words, which will be cut"
    )


def test_unknown_ids_and_repeated_judgements_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels = [("1", "a", 1.0), ("1", "a", 1.0), ("1", "a", 2.0), ("other", "a", 1.0)]
    write_trec(tmp_path, {"1": "kettle"}, qrels)
    with (tmp_path / "qrels.txt").open("a", encoding="utf-8") as stream:
        stream.write("1 0 gone 1\n")
    (found,) = read_source(Published(dataset="trec", path="."), tmp_path)
    assert found.grades == (1.0,)
    assert capsys.readouterr().err.startswith(
        "trec: 5 rows; left out 0 empty, 2 duplicates (1 with another grade), 1 of unknown "
        "queries, 1 of unknown documents;"
    )


def test_teacher_scores_stay_with_their_documents(tmp_path: Path) -> None:
    candidates = (Candidate("a", "", ""), Candidate("b", "", "text"))
    write_examples(tmp_path / "x.jsonl", [RankingExample("1", "q", candidates, None, (1.0, 2.0))])
    (found,) = read_source(Examples(path="x.jsonl"), tmp_path)
    assert (found.grades, found.teacher_scores) == (None, (2.0,))


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet"])
def test_a_file_of_examples_can_be_gone_through_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [example("1", "kettle", "a", "b"), example("2", "pot", "c")]
    write_examples(tmp_path / "x.jsonl", rows)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "x.jsonl").read_bytes()))
    elif name.endswith(".parquet"):
        table = pa.Table.from_pylist([asdict(row) for row in rows])
        pq.write_table(table, tmp_path / name)
    source = open_source(Examples(path=name), tmp_path)
    assert [*source] == [*source] == rows
    assert capsys.readouterr().err.count("rows; left out") == 1


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.parquet"])
def test_a_damaged_file_of_examples_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"{}")[:9] if "gz" in name else b"PAR1")
    with pytest.raises(RecipeError, match=name):
        read_source(Examples(path=name), tmp_path)


def test_a_parquet_row_that_is_no_example_is_named(tmp_path: Path) -> None:
    rows = [{"query": "q", "candidates": [{"title": "t"}]}, {"query": "q", "candidates": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pytest.raises(RecipeError, match=r"x\.parquet: row 2: not a ranking example"):
        read_source(Examples(path="x.parquet"), tmp_path)


def test_far_duplicates_are_found_within_the_window() -> None:
    tally = Tally("x", window=10)
    rows = [example(str(n), f"query {n}", "text") for n in range(40)]
    assert all(tally.tidy(row) for row in rows)
    assert tally.tidy(rows[30]) is None  # ten rows back
    assert tally.tidy(rows[5]) is rows[5]  # long forgotten
    assert (tally.rows, tally.duplicates) == (42, 1)


def test_a_malformed_example_is_named_by_file_and_line(tmp_path: Path) -> None:
    write_examples(tmp_path / "x.jsonl", [example("1", "q", "text")])
    with (tmp_path / "x.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"query": "q"}\n')
    with pytest.raises(RecipeError) as caught:
        read_source(Examples(path="x.jsonl"), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}:2: not a ranking example")


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    write_examples(tmp_path / "x.jsonl", [example("1", "q", "")])
    with pytest.raises(RecipeError, match="no query with a candidate is left"):
        read_source(Examples(path="x.jsonl"), tmp_path)


def test_runs_are_compared_on_published_sets_and_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trec(tmp_path / "t", {"1": "kettle"}, [("1", "a", 1.0), ("1", "b", 0.0)])
    write_examples(tmp_path / "x.jsonl", [example("2", "tea", "green", "black")])
    (tmp_path / "sets.toml").write_text(
        '[[sets]]\nkind = "published"\ndataset = "trec"\npath = "t"\n'
        '[[sets]]\nkind = "examples"\npath = "x.jsonl"\n',
        encoding="utf-8",
    )
    good = ("1 Q0 a 1 2 t", "1 Q0 b 2 1 t", "2 Q0 2-1 1 2 t", "2 Q0 2-0 2 1 t")
    bad = ("1 Q0 b 1 2 t", "1 Q0 a 2 1 t", "2 Q0 2-0 1 2 t", "2 Q0 2-1 2 1 t")
    write_lines(tmp_path / "good.run", *good)
    write_lines(tmp_path / "bad.run", *bad)
    models = ["--model", str(tmp_path / "bad.run"), "--model", str(tmp_path / "good.run")]
    arguments = ["compare", str(tmp_path / "sets.toml"), "--data", str(tmp_path)]
    assert main([*arguments, *models]) == 0
    out = capsys.readouterr().out
    assert "## t\n" in out
    assert "## x.jsonl\n" in out
    assert out.count("| good | pairwise accuracy | +1.0000 [+1.0000, +1.0000] |") == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            RankingExample("1", "q", (Candidate("a", "", "text"),)),
            "query '1' has no grades to judge by",
        ),
        (
            RankingExample(
                "1", "q", (Candidate("a", "", "x"), Candidate("a", "", "y")), (1.0, 0.0)
            ),
            "query '1' has a document id twice",
        ),
    ],
    ids=["no grades", "an id twice"],
)
def test_examples_that_cannot_be_judged_are_refused(
    row: RankingExample, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_examples(tmp_path / "x.jsonl", [row])
    recipe = tmp_path / "sets.toml"
    recipe.write_text('[[sets]]\nkind = "examples"\npath = "x.jsonl"\n', encoding="utf-8")
    write_lines(tmp_path / "x.run", "1 Q0 a 1 1 t")
    arguments = ["evaluate", str(recipe), "--data", str(tmp_path)]
    assert main([*arguments, "--model", str(tmp_path / "x.run")]) == 2
    assert message in capsys.readouterr().err
