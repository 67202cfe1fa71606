"""What a real server makes of requests that are bad before anybody reads their bodies."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.problems import MEDIA_TYPE, Problem
from service.api.routes import ROUTES
from tests.service.asking import assert_problem, request
from tests.service.test_connections import connect
from tests.service.test_server import Server, running

BODY = json.dumps(request()).encode()
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
BYE = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LARGE = b"Content-Length: 10000000"


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Server]:
    with running(bundle_path) as server:
        yield server
        assert server.stop() == 0
        assert [line for line in server.log if line["level"] == "error"] == []


def head(
    target: bytes = b"/rank", *lines: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1"
) -> bytes:
    return b"\r\n".join((b"%b %b %b" % (method, target, version), b"Host: x", *lines, b"", b""))


def answers(server: Server, sent: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the status, headers and body of every answer on a connection of its own."""
    found = b""
    with connect(server) as connection:
        try:
            connection.sendall(sent)
            while part := connection.recv(65_536):
                found += part
        except ConnectionError:
            pass
    return [*_split(found)]


def _split(found: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    while found:
        start, _, found = found.partition(b"\r\n\r\n")
        status, *lines = start.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", "0"))
        yield int(status.split()[1]), headers, found[:size]
        found = found[size:]


def close(sent: bytes) -> bytes:
    """Return a request with one more line: no other follows it."""
    return sent.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n", 1)


BAD: dict[str, tuple[bytes, int]] = {
    "no http": (b"\0\1\2\3\r\n\r\n", 400),
    "tls": (bytes.fromhex("16030100f4010000f0") + b"\0" * 200, 400),
    "http/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "version": (head(b"/livez", method=b"GET", version=b"HTTP/9.9"), 400),
    "method nobody knows": (head(method=b"BREW"), 400),
    "method in small letters": (head(LENGTH, method=b"post") + BODY, 400),
    "tunnel": (head(b"example.org:80", method=b"CONNECT"), 400),
    "path without a slash": (head(b"rank", LENGTH) + BODY, 400),
    "NUL in the path": (head(b"/ra\0nk", LENGTH) + BODY, 400),
    "raw UTF-8 in the path": (head("/rank/é".encode(), LENGTH) + BODY, 400),
    "NUL in a header": (head(b"/rank", LENGTH, b"X-Id: a\0b") + BODY, 400),
    "header without a colon": (head(b"/rank", LENGTH, b"colon") + BODY, 400),
    "folded header": (head(b"/rank", LENGTH, b"X-Id: a\r\n b") + BODY, 400),
    "lines without a return": (b"GET /livez HTTP/1.1\nHost: x\n\n", 400),
    "length and chunks": (head(b"/rank", LENGTH, b"Transfer-Encoding: chunked") + CHUNKED, 400),
    "two lengths": (head(b"/rank", LENGTH, b"Content-Length: 1") + BODY, 400),
    "length below zero": (head(b"/rank", b"Content-Length: -1") + BODY, 400),
    "length beyond all": (head(b"/rank", b"Content-Length: " + b"9" * 30) + BODY, 400),
    "length of letters": (head(b"/rank", b"Content-Length: ten") + BODY, 400),
    "chunk of no length": (head(b"/rank", b"Transfer-Encoding: chunked") + b"zz\r\n", 400),
    "another encoding": (head(b"/rank", b"Transfer-Encoding: gzip") + BODY, 400),
    "encoding after chunks": (head(b"/rank", b"Transfer-Encoding: chunked, gzip") + BODY, 400),
    "path of 100 kB": (head(b"/" + b"a" * 100_000), 431),
    "trailing slash": (close(head(b"/rank/", LENGTH)) + BODY, 404),
    "double slash": (close(head(b"//rank", LENGTH)) + BODY, 404),
    "dots": (close(head(b"/x/../rank", LENGTH)) + BODY, 404),
    "encoded NUL": (close(head(b"/rank%00", LENGTH)) + BODY, 404),
    "bad percent": (close(head(b"/%zz%ff", LENGTH)) + BODY, 404),
    "encoded newline": (close(head(b"/v1/retrieval/a%0Ab/reranking", LENGTH)) + BODY, 404),
    "path of 60 kB": (close(head(b"/" + b"a" * 60_000, method=b"GET")), 404),
    "all of the server": (close(head(b"*", method=b"OPTIONS")), 404),
    "preflight": (close(head(method=b"OPTIONS")), 405),
    "trace": (close(head(method=b"TRACE")), 405),
    "no body": (close(head()), 400),
}


@pytest.mark.parametrize(("sent", "status"), BAD.values(), ids=BAD)
def test_a_bad_request_gets_one_problem_and_its_connection_ends(
    server: Server, sent: bytes, status: int
) -> None:
    ((found, headers, body),) = answers(server, sent)
    assert found == status
    assert headers["content-type"] == MEDIA_TYPE
    assert headers["connection"] == "close"
    problem = Problem.model_validate_json(body)
    assert (problem.status, problem.request_id) == (status, headers["x-request-id"])
    assert (headers.get("allow") == "POST") is (status == 405)
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/rank", content=BODY).status_code == 200


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
FORM = b"Content-Type: application/x-www-form-urlencoded"
GOOD = {
    "chunks": head(b"/rank", b"Transfer-Encoding: chunked") + CHUNKED,
    "form": head(b"/rank", LENGTH, FORM) + BODY,
    "no type": head(b"/rank", LENGTH) + BODY,
    "encoded path": head(b"/%72ank", LENGTH) + BODY,
    "whole address": head(b"http://x/rank", LENGTH) + BODY,
    "query of 60 kB": head(b"/rank?" + b"a" * 60_000, LENGTH) + BODY,
    "header of 60 kB": head(b"/rank", LENGTH, b"X-Long: " + b"a" * 60_000) + BODY,
    "h2c": head(b"/rank", LENGTH, *H2C) + BODY,
    "h2c in chunks": head(b"/rank", b"Transfer-Encoding: chunked", *H2C) + CHUNKED,
    "websocket": head(b"/rank", LENGTH, b"Connection: Upgrade", b"Upgrade: websocket") + BODY,
    "empty lines first": b"\r\n\r\n" + head(b"/rank", LENGTH) + BODY,
}


@pytest.mark.parametrize("sent", GOOD.values(), ids=GOOD)
def test_an_odd_request_is_answered_and_so_is_the_next(server: Server, sent: bytes) -> None:
    (first, _, ranking), (second, _, alive) = answers(server, sent + BYE)
    assert (first, second) == (200, 200)
    assert len(json.loads(ranking)["results"]) == 1
    assert json.loads(alive) == {"status": "alive"}


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [(b"/rank", b"POST", 413), (b"/rank", b"PUT", 405), (b"/nowhere", b"POST", 404)],
)
def test_a_body_of_10_mb_is_refused_in_words_and_the_next_request_answered(
    server: Server, target: bytes, method: bytes, status: int
) -> None:
    sent = head(target, LARGE, method=method) + b" " * 10_000_000
    (found, _, body), (alive, _, _) = answers(server, sent + BYE)
    assert (found, alive) == (status, 200)
    assert Problem.model_validate_json(body).status == status


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    bad = head(b"/rank", b"Content-Length: 1") + b"{"
    upgrade = head(b"/rank", LENGTH, *H2C) + BODY
    missing = head(b"/missing", method=b"GET")
    found = answers(server, (upgrade + bad + missing) * 20 + BYE)
    assert [status for status, _, _ in found] == [200, 400, 404] * 20 + [200]


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    sent = head(b"/rank", LENGTH, version=b"HTTP/1.0") + BODY
    ((status, headers, _),) = answers(server, sent)
    assert (status, headers["connection"]) == (200, "close")


def test_a_client_that_waits_to_be_told_to_go_on_is_told(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head(b"/rank", LENGTH, b"Expect: 100-continue"))
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_comes_after_an_upgrade_is_read(server: Server) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head(b"/rank", LENGTH, b"Expect: 100-continue", *H2C))
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for byte in BODY:
            connection.sendall(bytes([byte]))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("path", sorted({re.sub("{.*}", "a/b", r.path) for r in ROUTES}))
def test_every_path_to_rank_at_refuses_alike(server: Server, path: str) -> None:
    with httpx.Client(base_url=server.url) as client:
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            response = client.request(method, path)
            assert_problem(response, 405)
            assert response.headers["allow"] == "POST"
        assert client.head(path).status_code == 405
        for body in (b"", b"{", b"[" * 90_000, b"\xff", b'"\\ud800"', b"1" * 5000):
            assert_problem(client.post(path, content=body), 400)
        assert_problem(client.post(path, content=b"[]"), 422)
        assert_problem(client.post(path, content=b" " * 1_000_001), 413)
        for wrong in (f"{path}/", f"{path}%2F", f"{path}%00", f"/x{path}"):
            assert_problem(client.post(wrong, content=BODY), 404)
