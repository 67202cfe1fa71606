"""What warm caches save on a query log that repeats."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

from loadtest.bench.results import CacheResult, CacheRow
from loadtest.bench.subject import NO_CACHES, Subject, require_success
from loadtest.client import Answer, Load, drive
from loadtest.payloads import rank_body, replayed
from loadtest.server import Server
from service.contract.types import RankingExample

CANDIDATES = 48


def measure(subject: Subject) -> CacheResult:
    """Return each configuration's times for the same log with and without caches, by turns.

    The log is replayed by one client in its order: the factor is that of the latency.
    """
    plan = subject.plan
    distinct = subject.requests("web", candidates=CANDIDATES, count=plan.log_requests)
    log = list(itertools.islice(replayed(distinct), plan.log_requests))
    rows = tuple(_row(subject, name, log) for name in subject.services)
    repeated = 1 - len({example.query_id for example in log}) / len(log)
    return CacheResult(requests=len(log), repeated=repeated, rows=rows)


def _row(subject: Subject, name: str, log: Sequence[RankingExample]) -> CacheRow:
    chunk = subject.plan.log_chunk
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(subject.serve(name))
        off = stack.enter_context(subject.serve(name, *NO_CACHES))
        loads: dict[str, list[Load]] = {"caches on": [], "caches off": []}
        for start in range(0, len(log), chunk):
            bodies = [rank_body(example) for example in log[start : start + chunk]]
            for side, server in (("caches on", on), ("caches off", off)):
                subject.say(f"{name}, {side}: requests {start + 1} to {start + len(bodies)}")
                loads[side].append(_replay(server, bodies, f"{name}, {side}"))
    usages = [answer.value["usage"] for load in loads["caches on"] for answer in load.ok]
    return CacheRow(
        name=name,
        on_s=tuple(load.wall_s for load in loads["caches on"]),
        off_s=tuple(load.wall_s for load in loads["caches off"]),
        on_ms=_latencies_ms(loads["caches on"]),
        off_ms=_latencies_ms(loads["caches off"]),
        run_share=sum(u["padded_tokens"] for u in usages) / sum(u["prompt_tokens"] for u in usages),
    )


def _replay(server: Server, bodies: Sequence[bytes], what: str) -> Load:
    with server.turn() as url:
        return require_success(drive(f"{url}/rank", bodies), what)


def _latencies_ms(loads: Sequence[Load]) -> tuple[float, ...]:
    answers: list[Answer] = [answer for load in loads for answer in load.ok]
    return tuple(1000 * answer.latency_s for answer in answers)
