"""No text of a request gets into the log or the metrics, whatever becomes of the request."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.asking import api_key, bearer
from tests.service.quoting import BREAKS_ON

SECRET = "sesquipedalian"  # noqa: S105 - in every field and header, with a mark of its own
TIMEOUT_S = 60


def secret(mark: str) -> str:
    return f"{SECRET}-{mark}"


KEY = secret("good-key")
HEADERS = {
    "User-Agent": secret("agent"),
    "Cookie": f"session={secret('cookie')}",
    "Referer": f"https://{secret('referer')}.example/",
    "Origin": f"https://{secret('origin')}.example",
    "X-Forwarded-For": secret("forwarded"),
    "X-Api-Key": secret("api-key"),
    "X-Request-Id": f"a text, {secret('request id')}",  # no id, so it is not taken for one
    "Traceparent": secret("traceparent"),
    "Baggage": f"user={secret('baggage')}",
    "Accept-Language": secret("language"),
    secret("header"): secret("header"),
}
CANDIDATE = {"id": secret("id"), "title": secret("title"), "summary": secret("summary")}
GOOD: dict[str, Any] = {
    "query": secret("query"),
    "candidates": [CANDIDATE, {"text": secret("text")}],
    "routing_key": secret("routing key"),
    "return_documents": True,
}
BROKEN = {**GOOD, "query": f"{BREAKS_ON} {secret('query')}"}
TEXTS = [secret("text 1"), secret("text 2")]
DIALECTS: dict[str, dict[str, Any]] = {
    "/rerank": {"query": secret("query"), "texts": TEXTS, "return_text": True},
    "/v1/rerank": {
        "query": secret("query"),
        "documents": [{"text": secret("object"), secret("field"): secret("value")}, *TEXTS],
        "model": secret("model"),
        "return_documents": True,
        secret("unknown"): secret("unknown"),
    },
    "/v2/rerank": {"query": secret("query"), "documents": TEXTS, "model": secret("model")},
    "/v1/ranking": {"query": {"text": secret("query")}, "passages": [{"text": secret("passage")}]},
    "/score": {"text_1": [secret("one"), secret("two")], "text_2": TEXTS, "user": secret("user")},
}
BAD_DIALECTS: dict[str, dict[str, Any]] = {
    "/rerank": {"query": secret("query"), "texts": [[secret("nested")]]},
    "/v1/rerank": {
        "query": {"text": secret("query")},
        "documents": [{secret("field"): secret("value")}],
        "rank_fields": [secret("rank field")],
        "top_n": secret("top_n"),
    },
    "/v2/rerank": {"query": secret("query"), "documents": secret("documents")},
    "/v1/ranking": {"query": secret("query"), "passages": TEXTS, "truncate": secret("truncate")},
    "/score": {"text_1": [secret("query")] * 3, "text_2": TEXTS},
}
BAD_BODIES = [
    {**GOOD, "top_k": secret("top_k"), "priority": secret("priority")},
    {**GOOD, "on_deadline": secret("on_deadline"), "deadline_ms": secret("deadline")},
    {**GOOD, secret("field"): secret("value")},
    {**GOOD, "candidates": [{**CANDIDATE, "text": secret("both"), secret("field"): 1}]},
    {**GOOD, "candidates": [CANDIDATE, CANDIDATE]},
    {**GOOD, "candidates": secret("candidates")},
    {**GOOD, "query": [secret("query")], "routing_key": secret("long") * 99},
    {**GOOD, "query": secret("long") * 9999},
    secret("string"),
]


@pytest.fixture(scope="module")
def story(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, list[int]], str, str]]:
    """Return the statuses by kind of request, everything the server wrote, and its metrics."""
    keys = [api_key(KEY.replace(SECRET, "k")), api_key("limited", tokens_per_s=0.01, burst_s=1)]
    keys[0]["sha256"] = api_key(KEY)["sha256"]
    command = [sys.executable, "-m", "tests.service.quoting", str(bundle_path), json.dumps(keys)]
    log = tmp_path_factory.mktemp("secrecy") / "log"
    with log.open("wb") as stderr:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=HEADERS) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.01)
            statuses = ask_everything(client)
            metrics = client.get("/metrics").text
        server.terminate()
        out, _ = server.communicate(timeout=TIMEOUT_S)
        yield statuses, out.decode() + log.read_text(), metrics
    finally:
        server.kill()
        server.wait()


def ask_everything(client: httpx.Client) -> dict[str, list[int]]:
    def rank(body: Any, key: str = KEY, path: str = "/rank") -> int:
        url = f"{path}?q={secret('argument')}"
        return client.post(url, json=body, headers=bearer(key)).status_code

    def post(path: str) -> int:
        with suppress(httpx.RemoteProtocolError):
            text = secret("content")
            return client.post(path, content=text, headers=bearer(KEY)).status_code
        return 0

    send_garbage(client.base_url)
    return {
        "good": [rank(GOOD) for _ in range(2)],
        "bad": [rank(body) for body in BAD_BODIES],
        "dialects": [rank(body, path=path) for path, body in DIALECTS.items()],
        "bad dialects": [rank(body, path=path) for path, body in BAD_DIALECTS.items()],
        "no json": [post("/rank")],
        "too large": [rank({**GOOD, "query": secret("large") * 99_999})],
        "expired": [rank({**GOOD, "query": secret("late"), "deadline_ms": 0.001})],
        "no key": [client.post("/rank", json=GOOD).status_code],
        "unknown key": [rank(GOOD, secret("bad-key"))],
        "scheme": [
            client.post("/rank", headers={"Authorization": secret("basic")}).status_code,
            client.post("/rank", headers={"Authorization": f"Basic {KEY}"}).status_code,
        ],
        "wrong scope": [client.get("/admin/settings", headers=bearer(KEY)).status_code],
        "rate": [rank(GOOD, "limited") for _ in range(2)],
        "engine": [rank(BROKEN) for _ in range(2)],
        "fail": [post(f"/fail/{where}") for where in ("handler", "stream", "task")],
    }


def send_garbage(url: httpx.URL) -> None:
    """Send what is no HTTP, what wants to become something else, and half a request."""
    for head in (
        f"{secret('method')} / HTTP/1.1",
        f"GET /{secret('é')} HTTP/1.1",
        f"GET / HTTP/1.1\r\n{secret('no colon')}",
        f"GET /livez?{secret('arg')} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nX: {secret('upgrade')}",
        f"POST /rank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 99",
    ):
        with socket.create_connection((url.host, url.port or 0)) as connection:
            connection.sendall(f"{head}\r\n\r\n{secret('body')}".encode())
            connection.settimeout(0.3)
            with suppress(OSError):
                connection.recv(1000)


def test_every_kind_of_failure_was_met(story: tuple[dict[str, list[int]], str, str]) -> None:
    statuses, _, _ = story
    assert statuses == {
        "good": [200, 200],
        "bad": [422] * len(BAD_BODIES),
        "dialects": [200] * len(DIALECTS),
        "bad dialects": [422] * len(BAD_DIALECTS),
        "no json": [400],
        "too large": [413],
        "expired": [422],
        "no key": [401],
        "unknown key": [401],
        "scheme": [401, 401],
        "wrong scope": [403],
        "rate": [200, 429],
        "engine": [500, 500],
        "fail": [500, 0, 200],
    }


def test_the_log_tells_everything_but_what_was_asked(
    story: tuple[dict[str, list[int]], str, str],
) -> None:
    _, written, _ = story
    lines = [json.loads(line) for line in written.splitlines()]
    told = [line["message"] for line in lines]
    for message in (
        "ranking failed",
        "unexpected error",
        "Exception in ASGI application\n",
        "Task exception was never retrieved",
        "Invalid HTTP request received.",
    ):
        assert message in told
    logged = {line.get("status") for line in lines}
    assert {200, 400, 401, 403, 413, 422, 429, 500} <= logged
    assert [line for line in lines if SECRET in json.dumps(line).casefold()] == []
    assert SECRET not in written.casefold()


def test_the_metrics_hold_nothing_of_what_was_asked(
    story: tuple[dict[str, list[int]], str, str],
) -> None:
    _, _, metrics = story
    assert 'key="limited"' in metrics
    assert SECRET not in metrics


def test_failures_are_logged_with_their_places_and_types(
    story: tuple[dict[str, list[int]], str, str],
) -> None:
    _, written, _ = story
    lines = [json.loads(line) for line in written.splitlines()]
    failed = next(line for line in lines if line["message"] == "ranking failed")
    assert "service.ranking.errors.ScoringError: the ranking model failed" in failed["exception"]
    assert "in score\n" in failed["exception"]
    assert "builtins.ValueError\n" in failed["exception"]
    several = next(line for line in lines if line["message"] == "unexpected error")
    assert "one of\n" in several["exception"]
    assert "builtins.KeyError" in several["exception"]
