"""Tokens/s through HTTP against a bare ONNX Runtime loop over the same token pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from loadtest.bench.bare import BareLoop, Run, Setting, bare_loop
from loadtest.bench.results import EngineResult, EngineRow
from loadtest.bench.subject import NO_CACHES, Subject, cores, require_success
from loadtest.client import Load, drive
from loadtest.payloads import rank_body
from loadtest.server import Server
from loadtest.statistics import median
from loadtest.weights import prepare_weights

CANDIDATES = 48
REQUESTS = 100
BATCHES = (1, 2, 4, 8)


def measure(subject: Subject) -> EngineResult:
    """Return the services' and the bare loops' tokens/s, all taking turns."""
    requests = subject.requests("passage", candidates=CANDIDATES, count=REQUESTS)
    bodies = [rank_body(request) for request in requests]
    encoder = subject.bundle.encoder()
    pairs = [pair for r in requests for pair in encoder.encode(r.query, r.candidates)]
    weights = prepare_weights(subject.bundle, subject.cache)
    models = {
        "bare loop, bundle's int8": subject.bundle.model_path("int8"),
        "bare loop, plain dynamic int8": weights.plain_int8,
        "bare loop, fp32": weights.fp32 / "model.onnx",
    }
    with contextlib.ExitStack() as stack:
        loops = {name: stack.enter_context(bare_loop(path, pairs)) for name, path in models.items()}
        servers = {
            name: stack.enter_context(subject.serve(name, *NO_CACHES)) for name in subject.services
        }
        searched = {name: _search(subject, loop, name) for name, loop in loops.items()}
        best = {name: max(found, key=found.__getitem__) for name, found in searched.items()}
        loads: dict[str, list[Load]] = {name: [] for name in servers}
        runs: dict[str, list[Run]] = {name: [] for name in loops}
        for number in range(subject.plan.rounds):
            for name, server in servers.items():
                subject.say(f"round {number + 1}: {name}")
                loads[name].append(_load(subject, server, bodies, name))
            for name, loop in loops.items():
                subject.say(f"round {number + 1}: {name}")
                runs[name].append(loop.run(best[name], subject.plan.window_s))
    counts = subject.token_counts(requests)
    floor, *others = (_bare_row(name, best[name], runs[name]) for name in loops)
    return EngineResult(
        pair_tokens=sum(counts) / len(pairs),
        services=tuple(_service_row(subject, name, loads[name], counts) for name in servers),
        floor=floor,
        others=tuple(others),
        searched={str(setting): rate for setting, rate in searched[floor.name].items()},
    )


def _search(subject: Subject, loop: BareLoop, name: str) -> dict[Setting, float]:
    """Return the loop's tokens/s by setting."""
    found = {}
    for calls, threads in {(1, cores()), (cores(), 1)}:
        for batch in BATCHES:
            setting = Setting(calls, threads, batch)
            subject.say(f"{name}: {setting}")
            found[setting] = loop.run(setting, subject.plan.search_s).tokens_per_s
    return found


def _load(subject: Subject, server: Server, bodies: Sequence[bytes], name: str) -> Load:
    plan = subject.plan
    with server.turn() as url:
        load = drive(f"{url}/rank", bodies, clients=plan.clients, seconds=plan.window_s)
    return require_success(load, name)


def _service_row(
    subject: Subject, name: str, loads: Sequence[Load], counts: Sequence[int]
) -> EngineRow:
    rates = [sum(counts[a.body] for a in load.ok) / load.wall_s for load in loads]
    flags = " ".join((*subject.services[name], *NO_CACHES))
    return EngineRow(
        name=name,
        detail=f"`serve {flags}`, {subject.plan.clients} clients",
        tokens_per_s=tuple(rates),
        client_cpu=median([load.cpu_share for load in loads]),
    )


def _bare_row(name: str, setting: Setting, runs: Sequence[Run]) -> EngineRow:
    return EngineRow(
        name=name,
        detail=str(setting),
        tokens_per_s=tuple(run.tokens_per_s for run in runs),
        padding=median([run.padding for run in runs]),
    )
