"""Candidates for queries that nobody judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_checkpoint
from tests.training.sets import write_corpus, write_tsv
from training.corpus import read_corpus
from training.data import read_source
from training.first_stage import rankings
from training.queries import STOP_WORDS, invent, read_queries_of
from training.recipe import RecipeError, Retrieved
from training.retrieval_recipe import FirstStage, InventedQueries, QueryFile, RetrieveRecipe
from training.retrieve import retrieve
from training.teacher import BiEncoder

TOPICS = ("kettle", "glacier", "violin", "harbour", "pepper")
PAGE = Candidate(
    "d", "Boiling Point", "The Boiling Point of pure water is 100 degrees. It falls with height."
)


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Write two corpora, each with one document a topic, one of it blank, and queries."""
    for name in ("first", "second"):
        texts = {f"{topic}-{name}": f"all about the {topic} in {name}" for topic in TOPICS}
        write_corpus(tmp_path / name, {**texts, "blank": " "})
    queries = [(f"q{topic}", f"buy a {topic}") for topic in TOPICS]
    write_tsv(tmp_path / "queries.tsv", *queries)
    write_tsv(tmp_path / "first" / "queries.tsv", *queries)
    write_tsv(
        tmp_path / "first" / "splits.tsv",
        *[(name, "train") for name, _ in queries[1:]],
        (queries[0][0], "val"),
    )
    return tmp_path


def recipe(**fields: object) -> RetrieveRecipe:
    return RetrieveRecipe.model_validate(
        {
            "name": "found",
            "queries": [{"kind": "file", "path": "queries.tsv"}],
            "corpora": ["first", "second"],
            "retrievers": [{"kind": "bm25", "top": 2}],
            "random": 0,
            **fields,
        }
    )


def run(source: RetrieveRecipe, data: Path, *, restart: bool = True) -> list[RankingExample]:
    folder = retrieve(source, data=data, out=data / "runs", restart=restart)
    return read_source(Retrieved(path=folder), data)


def names(example: RankingExample) -> list[str | None]:
    return [candidate.id for candidate in example.candidates]


def test_the_documents_that_name_the_topic_are_retrieved(corpora: Path) -> None:
    found = run(recipe(), corpora)
    assert {example.query for example in found} == {f"buy a {topic}" for topic in TOPICS}
    for example in found:
        topic = example.query.split()[-1]
        assert set(names(example)) == {f"{topic}-first", f"{topic}-second"}
        assert example.grades is None


def test_random_documents_come_after_the_top_ones_and_no_document_twice(corpora: Path) -> None:
    tops = {example.query: names(example) for example in run(recipe(), corpora)}
    extras: set[str | None] = set()
    for example in run(recipe(random=4), corpora):
        found = names(example)
        assert found[:2] == tops[example.query]
        assert len(found) == len(set(found)) <= 6
        assert "blank" not in found
        extras.update(found[2:])
    assert len(extras) > 4  # drawn for each query anew


def test_documents_from_further_down_are_drawn_below_the_top(corpora: Path) -> None:
    stage = FirstStage(kind="bm25", top=2, deep=3, depth=5)
    texts = [document_text(d) for d in read_corpus(corpora / "first" / "corpus.jsonl.gz").values()]
    ranked = next(iter(rankings(stage, texts[:5], ["buy a violin"])))
    assert texts[ranked[0]] == "all about the violin in first"
    for example in run(recipe(retrievers=[stage.model_dump()]), corpora):
        topic = example.query.split()[-1]
        assert set(names(example)[:2]) == {f"{topic}-first", f"{topic}-second"}
        assert len(set(names(example))) == 5


def test_a_bi_encoders_ranking_is_that_of_its_cosines(corpora: Path) -> None:
    base = str(tiny_checkpoint(corpora / "checkpoint"))
    texts = [f"{topic} and {other}" for topic in TOPICS for other in TOPICS]
    queries = ["harbour pepper", "violin"]
    stage = FirstStage(kind="bi-encoder", base=base, max_length=64, top=3, depth=7)
    encoder = BiEncoder(base, max_length=64, batch_tokens=256)
    cosines = (encoder.embed(queries) @ encoder.embed(texts).T).numpy()  # [Q, D]
    for row, places in zip(cosines, rankings(stage, texts, queries), strict=True):
        assert len(places) == 7
        np.testing.assert_allclose(row[places], np.sort(row)[::-1][:7], atol=1e-5)


def test_more_than_there_is_retrieves_all_there_is(corpora: Path) -> None:
    for example in run(recipe(retrievers=[{"kind": "bm25", "top": 99}]), corpora):
        assert len(example.candidates) == 10


def test_a_limit_takes_queries_by_hash_whatever_their_order(corpora: Path) -> None:
    source = QueryFile(path="queries.tsv", limit=2)
    few = read_queries_of(source, corpora)
    rows = [tuple(row.split("\t")) for row in (corpora / "queries.tsv").read_text().splitlines()]
    write_tsv(corpora / "queries.tsv", *reversed(rows))
    assert read_queries_of(source, corpora) == few
    assert len(few) == 2


def test_a_query_is_asked_once_and_never_if_it_is_excluded(corpora: Path) -> None:
    write_tsv(corpora / "more.tsv", ("a", "BUY  a glacier"), ("b", "sell a glacier"), ("c", "?!"))
    files = [{"kind": "file", "path": name} for name in ("queries.tsv", "more.tsv")]
    found = run(recipe(queries=files, exclude=[{"path": "first", "split": "val"}]), corpora)
    queries = sorted(example.query for example in found)
    assert queries == sorted([*(f"buy a {topic}" for topic in TOPICS[1:]), "sell a glacier"])


def test_queries_that_are_too_long_are_left_out_and_counted(corpora: Path) -> None:
    write_tsv(corpora / "queries.tsv", ("a", "a kettle"), ("b", "one two three four"))
    assert [example.query for example in run(recipe(most_words=3), corpora)] == ["a kettle"]
    told = json.loads((corpora / "runs" / "found" / "retrieved.json").read_text())
    assert told["counts"] == {"file": 1, "left out as too long": 1}


def test_queries_are_made_of_documents() -> None:
    assert invent(PAGE, "title") == "Boiling Point"
    assert invent(PAGE, "question") == "what is Boiling Point"
    assert invent(PAGE, "sentence") == "The Boiling Point of pure water is 100 degrees"
    phrase = invent(PAGE, "phrase").split()
    assert 2 <= len(phrase) <= 5
    assert " ".join(phrase) in PAGE.summary.casefold()
    assert not STOP_WORDS & set(phrase)
    assert invent(PAGE, "phrase") == " ".join(phrase)


@pytest.mark.parametrize("form", ["title", "question", "sentence", "phrase"])
def test_a_document_without_words_makes_no_query(form: str) -> None:
    assert invent(Candidate("d", " ", "of the"), form).strip() == ""


def test_an_invented_query_finds_its_document(corpora: Path) -> None:
    texts = {
        f"d{n}": (f"{topic} guide", f"{topic} {n} facts here") for n, topic in enumerate(TOPICS)
    }
    write_corpus(corpora / "third", texts)
    source = InventedQueries(corpora=("third",), form="title")
    found = run(recipe(queries=[source.model_dump()], corpora=["third"]), corpora)
    assert len(found) == len(TOPICS)
    for example in found:
        assert example.candidates[0].title == example.query


def test_the_same_is_found_in_another_process(corpora: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from training.retrieve import retrieve;"
        "from training.retrieval_recipe import RetrieveRecipe;"
        "retrieve(RetrieveRecipe.model_validate_json(sys.argv[1]), data=Path(sys.argv[2]), "
        "out=Path(sys.argv[3]))"
    )
    source = recipe(random=3)
    folder = retrieve(source, data=corpora, out=corpora / "here")
    command = [sys.executable, "-c", program, source.model_dump_json(), str(corpora)]
    subprocess.run([*command, str(corpora / "there")], check=True, timeout=120)
    there = corpora / "there" / "found" / "examples.jsonl"
    assert there.read_bytes() == (folder / "examples.jsonl").read_bytes()


def test_what_is_there_is_kept_and_another_recipes_is_not_mixed_with_it(corpora: Path) -> None:
    first = run(recipe(), corpora)
    stamp = (corpora / "runs" / "found" / "examples.jsonl").stat().st_mtime_ns
    assert run(recipe(), corpora, restart=False) == first
    assert (corpora / "runs" / "found" / "examples.jsonl").stat().st_mtime_ns == stamp
    with pytest.raises(RecipeError, match="candidates of another recipe"):
        run(recipe(random=1), corpora, restart=False)
    assert len(run(recipe(random=1), corpora)[0].candidates) == 3


def test_nothing_to_retrieve_is_refused(corpora: Path) -> None:
    write_tsv(corpora / "queries.tsv", ("q", "..."))
    with pytest.raises(RecipeError, match="no query is left"):
        run(recipe(), corpora)
    write_corpus(corpora / "first", {"blank": " "})
    with pytest.raises(RecipeError, match="first: no document with text"):
        run(recipe(corpora=["first"]), corpora)


def test_more_than_the_depth_cannot_be_taken() -> None:
    with pytest.raises(ValidationError, match="top 90 and deep 11 are over depth 100"):
        FirstStage(kind="bm25", top=90, deep=11)
