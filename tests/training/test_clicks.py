"""Clicks: every format yields the same rows from any start, and a bad row is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.contract.types import Candidate
from tests.training.sets import write_small_set
from training.clicks import Click, open_clicks
from training.recipe import JudgedSet, RecipeError
from training.teacher_recipes import ClickDataset, ClickFiles, ClickJudged

ROWS = [{"query": f"q{n}", "title": f"t{n}", "summary": None if n % 3 else "s"} for n in range(10)]
CLICKS = [Click(f"q{n}", Candidate(None, f"t{n}", "" if n % 3 else "s")) for n in range(len(ROWS))]


def write_lines(path: Path, rows: list[Any]) -> None:
    text = "\n\n".join(map(json.dumps, rows)) + "\n"
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as stream:
        stream.write(text)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("start", [0, 1, 4, 9, 10])
def test_files_are_read_from_any_row(name: str, start: int, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name, row_group_size=4)
    else:
        write_lines(tmp_path / name, ROWS)
    (shard,) = open_clicks(ClickFiles(paths=("*",)), tmp_path)
    assert list(shard.rows(start)) == CLICKS[start:]


@pytest.mark.parametrize("start", [0, 7])
def test_a_data_set_is_streamed_by_name(start: int, tmp_path: Path) -> None:
    renamed = [{"q": row["query"], "t": row["title"], "s": row["summary"]} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(renamed), tmp_path / "train.parquet")
    source = ClickDataset(name=str(tmp_path), query="q", title="t", summary="s")
    (shard,) = open_clicks(source, tmp_path / "elsewhere")
    assert list(shard.rows(start)) == CLICKS[start:]


def test_a_judged_sets_good_documents_count_as_clicked(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    source = ClickJudged(source=JudgedSet(path="small"), clicked_from=2)
    (shard,) = open_clicks(source, tmp_path)
    assert [(click.query, click.document.id) for click in shard.rows(0)] == [
        ("capital of france", "d2"),
        ("boil water", "d1"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"title": "t"}', "no field 'query'"),
        ('{"query": "q", "title": 3}', "title is 3, not a string"),
        ('{"query": "q\\ud800"}', "half a character"),
    ],
)
def test_a_malformed_line_names_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"query": "q", "title": "t"}}\n\n{line}\n', encoding="utf-8")
    (shard,) = open_clicks(ClickFiles(paths=("a.jsonl",)), tmp_path)
    with pytest.raises(RecipeError, match=rf"a\.jsonl:3: .*{message}"):
        list(shard.rows(0))


def test_files_that_are_missing_cut_short_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\*: no such file"):
        open_clicks(ClickFiles(paths=("none*",)), tmp_path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(RecipeError, match=r"a\.csv is neither"):
        open_clicks(ClickFiles(paths=("a.csv",)), tmp_path)
    write_lines(tmp_path / "b.jsonl.gz", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes((tmp_path / "b.jsonl.gz").read_bytes()[:-9])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    for name in ("b.jsonl.gz", "b.parquet"):
        (shard,) = open_clicks(ClickFiles(paths=(name,)), tmp_path)
        with pytest.raises(RecipeError, match=name):
            list(shard.rows(0))
    (shard,) = open_clicks(ClickDataset(name=str(tmp_path / "absent")), tmp_path)
    with pytest.raises(RecipeError, match="absent"):
        list(shard.rows(0))
