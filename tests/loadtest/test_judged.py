"""A folder of judged sets becomes requests with real text."""

import gzip
import json
from pathlib import Path

import pytest

from loadtest.judged import DataError, JudgedFolder


def write_set(folder: Path, queries: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True)
    ids = sorted({document for documents in queries.values() for document in documents})
    rows = [{"id": i, "title": "", "text": "" if i == "blank" else f"about {i}"} for i in ids]
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    (folder / "queries.tsv").write_text("".join(f"{q}\twhat is {q}\n" for q in queries))
    rows_text = (f"{q}\t{d}\t1\n" for q, documents in queries.items() for d in documents)
    (folder / "qrels.tsv").write_text("".join(rows_text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(
        tmp_path / "trec_dl19_passage",
        {"a": ["d1", "d2", "d3", "blank"], "b": ["d4", "d1", "d5", "d6", "d7"]},
    )
    return tmp_path


def test_each_query_is_asked_with_each_of_its_documents(folder: Path) -> None:
    requests = list(JudgedFolder(folder).requests("passage", candidates=2))
    asked = [(r.query, [c.id for c in r.candidates]) for r in requests]
    assert asked == [
        ("what is a", ["d1", "d2"]),
        ("what is b", ["d4", "d1"]),
        ("what is a", ["d3", "d4"]),  # filled up with the next query's
        ("what is b", ["d5", "d6"]),
        ("what is b", ["d7", "d1"]),  # going round
    ]
    assert requests[0].candidates[0].summary == "about d1"


def test_no_document_is_twice_in_a_request(folder: Path) -> None:
    for request in JudgedFolder(folder).requests("passage", candidates=7):
        ids = [candidate.id for candidate in request.candidates]
        assert len(ids) == len(set(ids)) == 7
        assert "blank" not in ids


def test_folder_names_the_kinds_it_has(folder: Path) -> None:
    assert JudgedFolder(folder).kinds == {"passage"}


def test_bad_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no mwmbl_web_llm and no trec_dl19_passage"):
        JudgedFolder(tmp_path)
    (tmp_path / "mwmbl_web_llm").mkdir()
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz"):
        JudgedFolder(tmp_path)
