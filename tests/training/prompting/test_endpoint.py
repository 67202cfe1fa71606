"""The client of OpenAI's HTTP API against a real server of the tests' own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.json_server import Reply
from tests.training.prompting.openai_server import Server, echoed, likely, said
from training.prompting.cache import Cached
from training.prompting.endpoint import EndpointModel
from training.prompting.question import AnswerError, Choose, Continue, Write, in_order
from training.prompting.recipe import Endpoint
from training.prompting.speakers import Counted
from training.recipe import RecipeError

BUSY: Reply = (429, {"retry-after": "0"}, {"error": {"message": "slow down"}})


def in_turn(*replies: Reply) -> Server:
    """Return a server that gives these answers in their order."""
    left: Iterator[Reply] = iter(replies)
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        with lock:
            return next(left)

    return Server(answer)


def endpoint(url: str, **fields: Any) -> EndpointModel:
    return EndpointModel(Endpoint.model_validate({"url": url, "model": "m", **fields}))


def test_a_busy_server_is_asked_again_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k1")
    server = in_turn(BUSY, (503, {"retry-after-ms": "1"}, b"gone"), said("hello"))
    with server.run() as url:
        ((_, answer),) = endpoint(url, key_variable="SOME_KEY").ask([Write("hi", 5)])
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("hello", 7, 3)
    assert len(server.asked) == 3
    path, headers, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer k1"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 5)


def test_a_server_that_is_too_slow_is_asked_again() -> None:
    held = threading.Event()
    calls = iter(range(2))

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if next(calls) == 0:
            held.wait(5)
        return said("at last")

    server = Server(answer)
    with server.run() as url:
        ((_, found),) = endpoint(url, timeout_s=0.3).ask([Write("hi", 5)])
        held.set()
    assert found.text == "at last"


def test_a_missing_key_is_told_before_anything_is_asked() -> None:
    with pytest.raises(RecipeError, match="NO_SUCH_KEY holds no key"):
        endpoint("http://127.0.0.1:9/v1", key_variable="NO_SUCH_KEY")


def test_a_refusal_is_told_at_once_with_what_the_server_says() -> None:
    server = in_turn((400, {}, {"error": {"message": "prompt too long"}}))
    with server.run() as url, pytest.raises(AnswerError, match=r"400 .*prompt too long"):
        list(endpoint(url).ask([Write("hi", 5)]))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("question", "garbage"),
    [
        (Write("hi", 5), b"<html>"),
        (Write("hi", 5), []),
        (Write("hi", 5), {"choices": []}),
        (Write("hi", 5), {"choices": [{"message": {"content": 3}}]}),
        (Write("hi", 5), {"choices": ["x"], "usage": 3}),
        (Choose("hi", ("Yes", "No")), said("Yes")[2]),
        (Choose("hi", ("Yes", "No")), likely()[2]),
        (Choose("hi", ("Yes", "No")), likely(Yes=-0.1, No=float("nan"))[2]),
        (Choose("hi", ("Yes", "No")), likely(Yes=-0.1, No=float("-inf"))[2]),
        (Continue("a", " b"), said("Yes")[2]),
        (Continue("a", " b"), echoed(["a", " b", "!"], [None, None, -1.0], 2)[2]),
        (Continue("a", " b"), echoed([], [], 2)[2]),
    ],
)
def test_garbage_is_an_error_of_its_own_that_names_the_server(
    question: Write | Choose | Continue, garbage: object
) -> None:
    server = in_turn((200, {}, garbage))
    with server.run() as url, pytest.raises(AnswerError, match=r"127\.0\.0\.1"):
        list(endpoint(url).ask([question]))


def test_a_model_that_says_nothing_has_said_nothing() -> None:
    server = in_turn(said(None))
    with server.run() as url:
        ((_, answer),) = endpoint(url).ask([Write("hi", 5)])
    assert answer.text == ""


def test_choices_are_weighed_whatever_their_blanks_and_case() -> None:
    server = in_turn(likely(**{" yes": -0.5, "Yes": -1.5, "no": -2.0, "Nope": -7.0}))
    with server.run() as url:
        ((_, answer),) = endpoint(url).ask([Choose("hi", ("Yes", "No"))])
    assert answer.logs == (-0.5, -2.0)
    assert server.asked[0][2]["top_logprobs"] == 20


def test_a_choice_that_is_not_among_the_likeliest_gets_the_least_of_these() -> None:
    server = in_turn(likely(Yes=-0.5, Maybe=-4.0))
    with server.run() as url:
        ((_, answer),) = endpoint(url).ask([Choose("hi", ("Yes", "No"))])
    assert answer.logs == (-0.5, -4.0)


def test_the_older_api_tells_the_likeliest_tokens_as_a_table() -> None:
    logprobs = {"top_logprobs": [{" A": -0.25, " B": -1.5}]}
    answer = {"choices": [{"text": " A", "logprobs": logprobs}]}
    server = in_turn((200, {}, answer))
    with server.run() as url:
        ((_, found),) = endpoint(url, api="completions").ask([Choose("hi", ("A", "B"))])
    assert found.logs == (-0.25, -1.5)
    assert server.asked[0][0] == "/v1/completions"


@pytest.mark.parametrize("start", [[], ["<s>"]])
def test_only_the_texts_own_tokens_are_weighed(start: list[str]) -> None:
    tokens = [*start, "doc", ":", " boil", " water", "."]
    logs = [None, *[-5.0] * len(start), -5.0, -1.0, -2.0, -9.0]
    server = in_turn(echoed(tokens, logs, len(tokens) - 1))
    with server.run() as url:
        ((_, answer),) = endpoint(url).ask([Continue("doc:", " boil water")])
    assert answer.logs == (-1.5,)
    body = server.asked[0][2]
    assert (body["prompt"], body["echo"], body["max_tokens"]) == ("doc: boil water", True, 1)


def test_questions_run_side_by_side_within_the_limit_and_answers_keep_their_order() -> None:
    gate = threading.Barrier(3, timeout=5)

    def answer(path: str, body: dict[str, Any]) -> Reply:
        gate.wait()
        return said(body["messages"][0]["content"].upper())

    server = Server(answer)
    with server.run() as url:
        questions = [Write(letter, 5) for letter in "abcdef"]
        answers = in_order(endpoint(url, connections=3).ask(questions))
    assert [answer.text for answer in answers] == list("ABCDEF")
    assert server.busiest == 3


def test_answers_are_kept_over_runs_and_the_cost_is_of_new_ones(tmp_path: Path) -> None:
    questions = [Write("a", 5), Write("b", 5), Write("a", 5)]
    first = in_turn(said("A"), (400, {}, {}))
    with first.run() as url:
        cached = Cached(endpoint(url, connections=1), tmp_path / "answers.sqlite")
        with pytest.raises(AnswerError):
            list(cached.ask(questions))
        name = cached.name
    second = in_turn(said("B", read=1000, written=500))
    with second.run() as url:
        model = endpoint(url, connections=1)
        model.name = name  # the port is another, the server the same
        counted = Counted(Cached(model, tmp_path / "answers.sqlite"), (2.0, 8.0))
        assert [answer.text for answer in in_order(counted.ask(questions))] == ["A", "B", "A"]
    assert len(second.asked) == 1
    assert counted.cost == pytest.approx((2.0 * 1000 + 8.0 * 500) / 1e6)
    assert str(counted) == (
        "1 questions asked, 2 answered before; tokens 1,000 read, 500 written, cost 0.0060"
    )


def test_what_was_answered_is_kept_though_an_earlier_question_fails(tmp_path: Path) -> None:
    answered = threading.Semaphore(0)

    def answer(path: str, body: dict[str, Any]) -> Reply:
        text = body["messages"][0]["content"]
        if text == "a":  # fails when the two after it have been answered
            assert answered.acquire(timeout=5)
            assert answered.acquire(timeout=5)
            return 400, {}, {"error": {"message": "no"}}
        answered.release()
        return said(text.upper())

    server = Server(answer)
    with server.run() as url:
        cached = Cached(endpoint(url, connections=3), tmp_path / "answers.sqlite")
        with pytest.raises(AnswerError, match="no"):
            list(cached.ask([Write(text, 5) for text in "abc"]))
        before = len(server.asked)
        kept = in_order(cached.ask([Write(text, 5) for text in "cb"]))
    assert [(one.text, one.cached) for one in kept] == [("C", True), ("B", True)]
    assert len(server.asked) == before == 3


def test_another_models_answers_are_not_taken(tmp_path: Path) -> None:
    server = in_turn(said("A"), said("other"))
    with server.run() as url:
        for name, expected in (("m", "A"), ("n", "other")):
            cached = Cached(endpoint(url, model=name), tmp_path / "answers.sqlite")
            ((_, answer),) = cached.ask([Write("a", 5)])
            assert answer.text == expected


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database at all, and long enough to be seen as none" * 20)
    with pytest.raises(RecipeError, match="no file of answers"):
        Cached(endpoint("http://127.0.0.1:9/v1"), tmp_path / "x")
