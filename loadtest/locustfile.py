"""People who search, for locust: each asks, reads for a second, and asks again.

`python -m locust -f loadtest/locustfile.py --host http://127.0.0.1:8080`, from the repository's
root, opens a page on port 8089; `docs/load-testing.md` says more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.users.log import query_log, told

LOG_REQUESTS = 1_000

_bodies: Iterator[str]
_records: list[tuple[float, float, bool]] = []
_open: dict[object, float] = {}


class Searcher(FastHttpUser):
    """One person."""

    wait_time = between(0.5, 1.5)

    @task
    def rank(self) -> None:
        """Ask for the best documents of the next query of the log."""
        headers = {"Content-Type": "application/json"}
        asked = object()
        _open[asked] = time.time()
        with self.client.post(
            "/rank", data=next(_bodies), headers=headers, catch_response=True
        ) as response:
            if response.status_code == 200 and not response.json()["results"]:
                response.failure("a ranking without results")
        del _open[asked]  # not where locust gave up on the answer


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """Add our options to locust's, on its page too."""
    group = parser.add_argument_group("Searchers")
    group.add_argument(
        "--bundle",
        default="models/default",
        help="bundle whose tokenizer's words the generated requests have",
    )
    group.add_argument("--candidates", type=int, default=48, help="documents a request")
    group.add_argument("--seed", type=int, default=0, help="of the generated requests")
    group.add_argument("--record", default="", help="file for every request's latency, as JSON")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Make the queries before the clock runs."""
    global _bodies
    options = environment.parsed_options
    assert options is not None  # noqa: S101
    tokenizer = Path(options.bundle) / "tokenizer.json"
    log = query_log(tokenizer, candidates=options.candidates, count=LOG_REQUESTS, seed=options.seed)
    _bodies = told(log)


@events.request.add_listener  # type: ignore[untyped-decorator]
def record(response_time: float, exception: Exception | None, **_: Any) -> None:
    """Note a request's end, its latency in seconds, and whether it was answered as asked."""
    _records.append((time.time(), response_time / 1000, exception is None))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def keep(environment: Environment, **_: Any) -> None:
    """Write what was noted, and the requests that nobody answered as failed ones."""
    options = environment.parsed_options
    if options is not None and options.record:
        now = time.time()
        given_up = [(now, now - began_at, False) for began_at in _open.values()]
        Path(options.record).write_text(json.dumps(_records + given_up), encoding="utf-8")
