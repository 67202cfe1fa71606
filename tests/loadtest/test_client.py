"""The client reports what happened, to every request, as long as it took."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loadtest.client import Answer, Load, drive

SLOW_S = 0.2


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections: set[Any]

    def do_POST(self) -> None:
        type(self).connections.add(self.client_address)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked == "hang up":
            self.close_connection = True
            return
        if asked == "slow":
            time.sleep(SLOW_S)
        body = json.dumps({"you": asked}).encode()
        self.send_response(429 if asked == "refuse" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Handler.connections = set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/echo"
    server.shutdown()
    server.server_close()
    thread.join()


def bodies(*values: str) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def test_each_body_is_sent_in_turn_over_one_connection(url: str) -> None:
    load = drive(url, bodies("a", "b", "c"), requests=7)
    assert [answer.value["you"] for answer in load.ok] == ["a", "b", "c", "a", "b", "c", "a"]
    assert [answer.body for answer in load.ok] == [0, 1, 2, 0, 1, 2, 0]
    assert len(Handler.connections) == 1


def test_failures_are_reported_and_never_count_as_answers(url: str) -> None:
    load = drive(url, bodies("a", "refuse", "hang up", "b"))
    assert [answer.value["you"] for answer in load.ok] == ["a", "b"]
    assert [answer.status for answer in load.failures] == [429, 0]
    assert "closed the connection" in load.failures[1].text


def test_server_that_is_gone_fails_every_request() -> None:
    load = drive("http://127.0.0.1:9/rank", bodies("a", "b"))
    assert load.ok == ()
    assert [answer.status for answer in load.failures] == [0, 0]


def test_latency_holds_the_servers_time_and_clients_work_side_by_side(url: str) -> None:
    load = drive(url, bodies("slow"), clients=4, requests=8)
    assert len(load.ok) == 8
    assert all(answer.latency_s >= SLOW_S for answer in load.ok)
    assert len(Handler.connections) == 4
    assert load.wall_s >= 2 * SLOW_S


def test_no_request_begins_after_the_time_is_up(url: str) -> None:
    load = drive(url, bodies("slow"), seconds=1.5 * SLOW_S)
    assert all(answer.began_s <= 1.5 * SLOW_S for answer in load.answers)
    assert load.wall_s >= 1.5 * SLOW_S


def test_wall_time_includes_failed_requests() -> None:
    load = Load((Answer(0, 0.0, 1.0, 200, "{}"), Answer(1, 1.0, 3.0, 500, "")), cpu_share=0.1)
    assert load.wall_s == 4.0
    assert len(load.ok) / load.wall_s == 0.25
