"""Latency by the number of candidates and by their length."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from loadtest.bench.results import CostResult, CostRow
from loadtest.bench.subject import NO_CACHES, Subject, require_success
from loadtest.client import drive
from loadtest.payloads import rank_body
from loadtest.server import Server
from loadtest.statistics import median
from service.contract.types import RankingExample

CANDIDATES = 48
DISTINCT = 10


@dataclass(frozen=True, slots=True)
class _Size:
    candidates: int
    document_tokens: int | None
    requests: list[RankingExample]
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)


def measure(subject: Subject) -> CostResult:
    """Return the cost of each size for each configuration, one client, caches off."""
    sizes = list(_sizes(subject))
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(subject.serve(name, *NO_CACHES)) for name in subject.services
        }
        for size in sizes:
            for number in range(subject.plan.rounds):
                for name, server in servers.items():
                    about = f"{size.candidates} candidates"
                    if size.document_tokens is not None:
                        about += f" of {size.document_tokens} tokens"
                    subject.say(f"{about}, round {number + 1}: {name}")
                    size.latencies_ms.setdefault(name, []).extend(_measure(subject, size, server))
    return CostResult(
        rows=tuple(
            CostRow(
                name=name,
                candidates=size.candidates,
                document_tokens=size.document_tokens,
                tokens=median([float(n) for n in subject.token_counts(size.requests)]),
                latencies_ms=tuple(found),
            )
            for size in sizes
            for name, found in size.latencies_ms.items()
        )
    )


def _sizes(subject: Subject) -> Iterator[_Size]:
    for count in subject.plan.counts:
        yield _Size(count, None, subject.requests("passage", candidates=count, count=DISTINCT))
    for tokens in subject.plan.lengths:  # exact lengths can only be generated
        source = subject.generator.requests(
            "passage", candidates=CANDIDATES, document_tokens=tokens
        )
        yield _Size(CANDIDATES, tokens, list(itertools.islice(source, DISTINCT)))


def _measure(subject: Subject, size: _Size, server: Server) -> list[float]:
    bodies = [rank_body(request) for request in size.requests]
    name = f"{size.candidates} candidates"
    with server.turn() as url:
        load = require_success(drive(f"{url}/rank", bodies, seconds=subject.plan.cost_s), name)
    return [1000 * answer.latency_s for answer in load.ok]
