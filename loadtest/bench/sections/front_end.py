"""Time outside tokenising, queue and inference, as a client sees it."""

from __future__ import annotations

import contextlib

from loadtest.bench.results import FrontEndResult, OverheadRow
from loadtest.bench.subject import Subject, require_success
from loadtest.client import Answer, drive
from loadtest.payloads import rank_body

CANDIDATES = 48
DISTINCT = 30
STAGES = ("tokenise_ms", "queue_ms", "infer_ms")
FLAGS = ("--score-cache-mb", "0")
"""Every pair is scored anew; the documents' tokens are kept."""


def measure(subject: Subject) -> FrontEndResult:
    """Return each configuration's overheads, the configurations taking turns."""
    requests = subject.requests("web", candidates=CANDIDATES, count=DISTINCT)
    bodies = [rank_body(request) for request in requests]
    plan = subject.plan
    answers: dict[str, list[Answer]] = {name: [] for name in subject.services}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(subject.serve(name, *FLAGS)) for name in subject.services
        }
        for name, server in servers.items():
            subject.say(f"{name}: filling the token cache")
            with server.turn() as url:
                require_success(drive(f"{url}/rank", bodies), name)
        for number in range(plan.rounds):
            for name, server in servers.items():
                subject.say(f"round {number + 1}: {name}")
                with server.turn() as url:
                    count = max(1, plan.overhead_requests // plan.rounds)
                    load = drive(f"{url}/rank", bodies, requests=count)
                answers[name] += require_success(load, name).ok
    rows = (
        OverheadRow(
            name=name,
            latencies_ms=tuple(1000 * answer.latency_s for answer in found),
            overheads_ms=tuple(map(overhead_ms, found)),
        )
        for name, found in answers.items()
    )
    return FrontEndResult(candidates=CANDIDATES, rows=tuple(rows))


def overhead_ms(answer: Answer) -> float:
    """Return what of a latency was spent in no stage of the ranking."""
    timings = answer.value["timings"]
    return 1000 * answer.latency_s - sum(float(timings[stage]) for stage in STAGES)
