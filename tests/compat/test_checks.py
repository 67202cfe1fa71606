"""The checks themselves: a client that does well passes, and each kind of mistake is caught."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.compat.programs.checks import Ask, Finding, Hit, Program, findings
from tests.compat.run import as_often, matches, on_path, told
from tests.compat.services import Attempt, Services

RAISES = dict.fromkeys((401, 422, 429), urllib.error.HTTPError)
NO_WAIT = {"retry": "takes seconds"}


def rank(ask: Ask) -> list[Hit]:
    body = {
        "query": ask.query,
        "candidates": [{"text": text} for text in ask.documents],
        "top_k": ask.top_n,
        "return_documents": True,
    }
    headers = {"authorization": f"Bearer {ask.key}"}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{ask.url}/rank", data, headers)  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        results = json.load(answer)["results"]
    return [Hit(r["index"], r["relevance"], r["document"]["text"]) for r in results]


def spoilt(spoil: Callable[[list[Hit]], list[Hit]]) -> Program:
    return Program(lambda ask: spoil(rank(ask)), RAISES, cannot=NO_WAIT)


def states(program: Program, running: Services) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings(program, running.task)}


def test_client_that_does_well_passes(running: Services) -> None:
    assert set(states(Program(rank, RAISES), running).values()) == {"ok"}


@pytest.mark.parametrize(
    ("spoil", "failed"),
    [
        pytest.param(lambda hits: hits[::-1], {"ranks", "top_n"}, id="order"),
        pytest.param(lambda hits: hits[:2], {"ranks", "top_n"}, id="too few"),
        pytest.param(
            lambda hits: [replace(hit, score=round(hit.score, 3)) for hit in hits],
            {"ranks", "top_n"},
            id="scores",
        ),
        pytest.param(
            lambda hits: [replace(hit, text=None) for hit in hits], {"documents"}, id="documents"
        ),
    ],
)
def test_answer_read_wrongly_is_caught(
    spoil: Callable[[list[Hit]], list[Hit]], failed: set[str], running: Services
) -> None:
    found = states(spoilt(spoil), running)
    assert {check for check, state in found.items() if state == "failed"} == failed


def test_top_n_that_is_not_passed_on_is_caught(running: Services) -> None:
    program = Program(lambda ask: rank(replace(ask, top_n=None)), RAISES, cannot=NO_WAIT)
    assert states(program, running)["top_n"] == "failed"


def test_refusal_that_is_swallowed_or_garbled_is_caught(running: Services) -> None:
    def swallow(ask: Ask) -> list[Hit]:
        try:
            return rank(ask)
        except urllib.error.HTTPError:
            return []

    found = states(Program(swallow, RAISES), running)
    assert [found[check] for check in ("401", "422", "429", "retry")] == ["failed"] * 4
    program = Program(rank, dict.fromkeys(RAISES, KeyError), cannot=NO_WAIT)
    found = states(program, running)
    assert [found[check] for check in ("401", "422", "429")] == ["failed"] * 3


def test_what_is_not_for_a_client_is_left_out_with_its_reason(running: Services) -> None:
    program = Program(rank, RAISES, cannot={"documents": "keeps its own", **NO_WAIT})
    found = {finding.check: finding for finding in findings(program, running.task)}
    assert found["documents"] == Finding("documents", "unsupported", "keeps its own")


def test_number_of_tries_and_path_are_held_against_the_services_log() -> None:
    refusals = [Attempt("/v2/rerank", 429)] * 3
    assert as_often(Finding("429", "ok", "`E`", tries=3), refusals).note == "3 tries, `E`"
    assert as_often(Finding("429", "ok", "`E`", tries=1), refusals).state == "failed"
    assert on_path(Finding("ranks", "ok"), refusals, "/v2/rerank").state == "ok"
    assert on_path(Finding("ranks", "ok"), refusals, "/v1/rerank").state == "failed"
    assert matches("/v1/retrieval/a/b/reranking", "/v1/retrieval/…/reranking")
    native, last = Attempt("/rank", 200), Attempt("/v2/rerank", 200)
    waited = told(Finding("retry", "ok", "answered"), [native, refusals[0], last])
    assert waited.note == "waits as told"
    impatient = told(Finding("retry", "ok", "answered"), [native, *refusals[:2], last])
    assert impatient.note == "waits its own time, answered at try 3"
