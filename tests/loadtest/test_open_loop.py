"""The open-loop client measures what users would have waited, and slows down for no server."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loadtest.arrivals import burst, constant
from loadtest.client import drive
from loadtest.open_loop import LAG_LIMIT_S, Arrival, OpenLoad, send
from loadtest.statistics import percentile

STALL_S = 1.0
STALLED_REQUEST = 100


class Server(ThreadingHTTPServer):
    """Answers with what the body says, one request at a time; stalls once if told to."""

    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.turn = threading.Lock()
        self.requests = 0
        self.stall_at = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.turn:
            self.server.requests += 1
            if self.server.requests == self.server.stall_at:
                time.sleep(STALL_S)
        if asked == b'"hang up"':
            self.close_connection = True
            return
        self.send_response(int(asked))
        self.send_header("Server-Timing", "queue;dur=1.5, total;dur=2.5")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_stall_shows_in_the_p99_that_a_closed_loop_hides(server: Server) -> None:
    server.stall_at = STALLED_REQUEST
    load = send(server.url, [b"200"], constant(100, 3))
    latencies_s = [arrival.latency_s for arrival in load.arrivals]
    assert load.outcomes == {"ok": 300}
    assert percentile(latencies_s, 99) > 0.9 * STALL_S
    assert sum(latency_s > STALL_S / 2 for latency_s in latencies_s) >= 45  # those due in its half

    server.requests = 0
    closed = drive(server.url, [b"200"], requests=300)
    latencies_s = [answer.latency_s for answer in closed.ok]
    assert max(latencies_s) > 0.9 * STALL_S
    assert percentile(latencies_s, 99) < STALL_S / 2  # one of 300: it asked nothing meanwhile


def test_requests_due_in_a_stall_are_sent_in_it(server: Server) -> None:
    server.stall_at = 1
    load = send(server.url, [b"200"], constant(50, STALL_S))
    assert all(arrival.sent_s < STALL_S for arrival in load.arrivals[:25])
    assert load.arrivals[10].latency_s > STALL_S / 2


def test_every_outcome_is_counted(server: Server) -> None:
    bodies = [b"200", b"429", b"504", b"500", b'"hang up"']
    load = send(server.url, bodies, constant(100, 0.1))
    ends = {"ok": 2, "rejected": 2, "expired": 2, "error": 2, "lost": 2}
    assert load.outcomes == ends
    assert [a.outcome for a in load.arrivals] == [*ends, *ends]
    assert {a.handler_s for a in load.arrivals if a.status} == {0.0025}


def test_server_that_is_gone_loses_every_request() -> None:
    load = send("http://127.0.0.1:9/rank", [b"200"], burst(3))
    assert load.outcomes == {"lost": 3}


def test_requests_beyond_the_bound_are_unsent_and_the_client_says_it_fell_behind(
    server: Server,
) -> None:
    server.stall_at = 1
    load = send(server.url, [b"200"], constant(100, 0.5), connections=4)
    assert load.outcomes == {"ok": 4, "unsent": 46}
    assert load.behind


def test_client_that_cannot_keep_its_schedule_says_so(server: Server) -> None:
    load = send(server.url, [b"200"], constant(1_000_000, 0.005), connections=8)
    assert len(load.arrivals) == 5000
    assert load.behind


@pytest.mark.parametrize(("late_s", "behind"), [(LAG_LIMIT_S / 2, False), (LAG_LIMIT_S * 2, True)])
def test_client_is_behind_when_one_in_a_hundred_is_sent_late(late_s: float, behind: bool) -> None:
    def arrival(lag_s: float) -> Arrival:
        return Arrival(0, 1.0, 1.0 + lag_s, 2.0, 200, 0.1, "")

    assert OpenLoad((*[arrival(0)] * 98, *[arrival(late_s)] * 2)).behind == behind
    assert not OpenLoad((*[arrival(0)] * 199, arrival(late_s))).behind
