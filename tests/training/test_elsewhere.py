"""Teachers by URL, held against a real service, and teachers in files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from loadtest.server import Server, our_service
from service.contract.bundle import Bundle
from service.contract.types import Candidate, RankingExample
from service.scorers.json_client import RemoteError
from service.scorers.onnx import OnnxScorer
from service.scorers.remote import RemoteScorer
from tests.json_server import Reply, json_server
from tests.tiny import tiny_bundle
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged, read_labels
from training.elsewhere import RankingsFile, RemoteTeacher, ScoresFile
from training.recipe import JudgedSet, RecipeError, RemoteOptions

RECIPE = """
name = "toy-labels"
teacher = "{teacher}"
teacher_kind = "{kind}"
queries_per_shard = 5

[[sources]]
kind = "judged"
path = "toy"
"""
REMOTE = """
[remote]
protocol = "{protocol}"
documents_per_request = 4
connections = 3
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_toy_set(folder, queries=12)
    tiny_bundle(folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def examples(task: Path) -> list[RankingExample]:
    return read_judged(JudgedSet(path="toy"), task)


@pytest.fixture(scope="module")
def server(task: Path) -> Iterator[Server]:
    with our_service(task / "bundle", "--threads", "1", "--engine", "onnx") as server:
        yield server


def own_scores(task: Path, example: RankingExample) -> list[float]:
    bundle = Bundle.open(task / "bundle")
    pairs = bundle.encoder().encode(example.query, example.candidates)
    scores: list[float] = OnnxScorer(bundle.model_path("int8"), threads=1).score(pairs).tolist()
    return scores


@pytest.mark.parametrize("protocol", ["disranker", "tei", "vllm"])
def test_a_server_labels_as_its_model_scores(
    protocol: str, task: Path, server: Server, examples: list[RankingExample], tmp_path: Path
) -> None:
    text = RECIPE.format(teacher=server.url, kind="remote") + REMOTE.format(protocol=protocol)
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    arguments = ["label", str(tmp_path / "recipe.toml"), "--data", str(task)]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    labelled = read_labels(tmp_path / "toy-labels")
    assert [example.query_id for example in labelled] == [e.query_id for e in examples]
    for example in labelled:
        assert example.teacher_scores == pytest.approx(own_scores(task, example), abs=1e-6)
    summary = json.loads((tmp_path / "toy-labels" / "labels.json").read_text(encoding="utf-8"))
    assert summary["teacher"] == server.url


class Moody:
    """A server that gives prepared answers, and keeps what it was asked."""

    def __init__(self, *answers: Reply) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    @contextmanager
    def run(self) -> Iterator[str]:
        def answer(path: str, headers: dict[str, str], body: Any) -> Reply:
            self.asked.append((path, headers, body))
            return self.answers.pop(0)

        with json_server(answer) as url:
            yield f"{url}/"


TWO = [Candidate("a", "A title", "and a summary"), Candidate("b", "", "text")]
GOOD: Reply = (
    200,
    {},
    [{"index": 1, "score": 2.5}, {"index": 0, "score": -1.0}],
)


def test_a_busy_server_is_asked_again_and_the_key_is_shown() -> None:
    moody = Moody(
        (503, {"retry-after-ms": "1"}, {"detail": "not ready"}),
        (429, {"retry-after": "0"}, b"no JSON"),
        GOOD,
    )
    with moody.run() as url:
        scorer = RemoteScorer(url, "tei", key="drk_1")
        assert scorer.score("q", TWO).tolist() == [-1.0, 2.5]
        scorer.close()
    assert [path for path, _, _ in moody.asked] == ["/rerank"] * 3
    _, headers, body = moody.asked[-1]
    assert headers["authorization"] == "Bearer drk_1"
    assert body["texts"] == ["A title and a summary", "text"]
    assert body["raw_scores"] is True


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, {"error": "no such key"}), "401 no such key"),
        ((422, {}, {"detail": "texts: too many"}), "422 texts: too many"),
        ((200, {}, b"<html>"), "no JSON: <html>"),
        ((200, {}, {"results": []}), "not 2 scores"),
        ((200, {}, [{"index": 0, "score": 1.0}]), "there are 1 for 1 documents"),
        ((200, {}, [{"index": 0, "score": 1}, {"index": 0, "score": 1}]), "2 for 1 documents"),
        ((200, {}, [{"index": 0, "score": 1}, {"index": 2, "score": 1}]), "2 for 2 documents"),
        ((200, {}, b'[{"index": 0, "score": NaN}, {"index": 1, "score": 1}]'), "not finite"),
    ],
)
def test_what_is_no_answer_is_named_and_not_asked_again(
    answer: tuple[int, dict[str, str], Any], message: str
) -> None:
    moody = Moody(answer)
    with moody.run() as url:
        scorer = RemoteScorer(url, "tei")
        with pytest.raises(RemoteError, match=message):
            scorer.score("q", TWO)
        scorer.close()
    assert len(moody.asked) == 1


def test_a_failing_server_fails_the_stage_in_one_line(task: Path, tmp_path: Path) -> None:
    moody = Moody(*[(400, {}, {"error": "bad model"})] * 9)
    options = RemoteOptions(protocol="vllm", model="m", documents_per_request=2)
    with moody.run() as url, pytest.raises(RecipeError, match="400 bad model"):
        RemoteTeacher(url, options).score(read_judged(JudgedSet(path="toy"), task)[:1])
    assert {body["model"] for _, _, body in moody.asked} == {"m"}


def test_requests_keep_their_distance() -> None:
    moody = Moody(*[GOOD] * 4)
    with moody.run() as url:
        scorer = RemoteScorer(url, "tei", requests_per_s=50)
        began = monotonic()
        for _ in range(4):
            scorer.score("q", TWO)
        scorer.close()
    assert monotonic() - began >= 3 / 50


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    options = RemoteOptions(protocol="tei", key_variable="TEACHER_KEY")
    with pytest.raises(RecipeError, match="TEACHER_KEY holds no key"):
        RemoteTeacher("http://127.0.0.1:1", options)


EXAMPLE = RankingExample("q1", "kettle", (Candidate("a"), Candidate("b"), Candidate("c")))


@pytest.mark.parametrize(
    "text",
    ["q1\ta\t0.5\nq1\tb\t-1\n\nq1\tc\t3\n", "q1 Q0 c 1 3 x\nq1 Q0 a 2 0.5 x\nq1 Q0 b 3 -1 x"],
)
def test_scores_are_read_from_tables_and_runs(text: str, tmp_path: Path) -> None:
    (tmp_path / "scores").write_text(text, encoding="utf-8")
    (found,) = ScoresFile(tmp_path / "scores").score([EXAMPLE])
    assert found.tolist() == [0.5, -1.0, 3.0]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\ta\t0.5\nq1\tb\n", "scores:2: neither"),
        ("q1\ta\thigh\n", "scores:1: score 'high' is no finite number"),
        ("q1\ta\tnan\n", "scores:1: score 'nan' is no finite number"),
        ("q1\ta\t1\nq1\ta\t2\n", "scores:2: another score"),
        ("q1\ta\t1\nq1\tb\t1\n", "no score for query 'q1', document 'c'"),
    ],
)
def test_bad_scores_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        ScoresFile(tmp_path / "scores").score([EXAMPLE])


def test_documents_that_a_ranking_omits_come_last_together(tmp_path: Path) -> None:
    (tmp_path / "rankings").write_text('{"query_id": "q1", "ranking": ["c", "a"]}\n')
    (found,) = RankingsFile(tmp_path / "rankings").score([EXAMPLE])
    assert found.tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"query_id": "q1"}', "rankings:1: not"),
        ('{"query_id": "q1", "ranking": ["a", "a"]}', "rankings:1: not"),
        ("[1]", "rankings:1: not"),
        (
            '{"query_id": "q1", "ranking": []}\n{"query_id": "q1", "ranking": []}',
            "rankings:2: a se",
        ),
        ('{"query_id": "q1", "ranking": ["z"]}', "ranks 'z', which is none of its candidates"),
        ('{"query_id": "q2", "ranking": ["a"]}', "no ranking for query 'q1'"),
    ],
)
def test_bad_rankings_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rankings").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        RankingsFile(tmp_path / "rankings").score([EXAMPLE])
