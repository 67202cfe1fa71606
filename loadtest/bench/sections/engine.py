"""Tokens/s through HTTP against bare loops over the same token pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from loadtest.bench.bare import BareLoop, Run, Setting, bare_loop
from loadtest.bench.results import EngineResult, EngineRow
from loadtest.bench.subject import NO_CACHES, Subject, cores, require_success
from loadtest.client import Load, drive
from loadtest.payloads import rank_body
from loadtest.server import Server
from loadtest.statistics import median
from loadtest.weights import int8_weights, prepare_weights

CANDIDATES = 48
REQUESTS = 100
BATCHES = (1, 2, 4, 8)


LOOPS = {
    "native": "bare loop, native engine",
    "onnx": "bare loop, ONNX Runtime, bundle's int8",
    "plain": "bare loop, ONNX Runtime, plain dynamic int8",
    "fp32": "bare loop, ONNX Runtime, fp32",
}


def measure(subject: Subject) -> EngineResult:
    """Return the services' and the bare loops' tokens/s, all taking turns."""
    requests = subject.requests("passage", candidates=CANDIDATES, count=REQUESTS)
    bodies = [rank_body(request) for request in requests]
    encoder = subject.bundle.encoder()
    pairs = [pair for r in requests for pair in encoder.encode(r.query, r.candidates)]
    with contextlib.ExitStack() as stack:
        loops = {
            kind: stack.enter_context(bare_loop(path, pairs))
            for kind, path in _models(subject).items()
        }
        servers = {
            name: stack.enter_context(subject.serve(name, *NO_CACHES)) for name in subject.services
        }
        searched = {kind: _search(subject, loop, kind) for kind, loop in loops.items()}
        best = {kind: max(found, key=found.__getitem__) for kind, found in searched.items()}
        loads: dict[str, list[Load]] = {name: [] for name in servers}
        runs: dict[str, list[Run]] = {kind: [] for kind in loops}
        for number in range(subject.plan.engine_rounds):
            for name, server in servers.items():
                subject.say(f"round {number + 1}: {name}")
                loads[name].append(_load(subject, server, bodies, name))
            for kind, loop in loops.items():
                subject.say(f"round {number + 1}: {LOOPS[kind]}")
                runs[kind].append(loop.run(best[kind], subject.plan.engine_s))
    counts = subject.token_counts(requests)
    return EngineResult(
        pair_tokens=sum(counts) / len(pairs),
        services=tuple(_service_row(subject, name, loads[name], counts) for name in servers),
        loops={kind: _bare_row(kind, best[kind], runs[kind]) for kind in loops},
        searched={
            LOOPS[kind]: {str(setting): rate for setting, rate in found.items()}
            for kind, found in searched.items()
        },
    )


def _models(subject: Subject) -> dict[str, Path]:
    """Return what the loops run, by kind: the floors of the services, and two more."""
    weights = prepare_weights(subject.bundle, subject.cache)
    models = {
        "native": int8_weights(subject.bundle),
        "onnx": subject.bundle.model_path("int8"),
        "plain": weights.plain_int8,
        "fp32": weights.fp32 / "model.onnx",
    }
    engines = {subject.engine(name) for name in subject.services}
    return {kind: path for kind, path in models.items() if kind != "native" or kind in engines}


def _search(subject: Subject, loop: BareLoop, kind: str) -> dict[Setting, float]:
    """Return the loop's tokens/s by setting: the better of two trials, for others only slow it."""
    layouts = {(cores(), 1)} if kind == "native" else {(1, cores()), (cores(), 1)}
    settings = [Setting(*layout, batch) for layout in sorted(layouts) for batch in BATCHES]
    found = dict.fromkeys(settings, 0.0)
    for _ in range(2):
        for setting in settings:
            subject.say(f"{LOOPS[kind]}: {setting}")
            rate = loop.run(setting, subject.plan.search_s).tokens_per_s
            found[setting] = max(found[setting], rate)
    return found


def _load(subject: Subject, server: Server, bodies: Sequence[bytes], name: str) -> Load:
    plan = subject.plan
    with server.turn() as url:
        load = drive(f"{url}/rank", bodies, clients=plan.clients, seconds=plan.engine_s)
    return require_success(load, name)


def _service_row(
    subject: Subject, name: str, loads: Sequence[Load], counts: Sequence[int]
) -> EngineRow:
    rates = [sum(counts[a.body] for a in load.ok) / load.wall_s for load in loads]
    flags = " ".join((*subject.services[name], *NO_CACHES))
    return EngineRow(
        name=name,
        detail=f"`serve {flags}`, {subject.plan.clients} clients",
        floor=LOOPS[subject.engine(name)],
        tokens_per_s=tuple(rates),
        client_cpu=median([load.cpu_share for load in loads]),
    )


def _bare_row(kind: str, setting: Setting, runs: Sequence[Run]) -> EngineRow:
    return EngineRow(
        name=LOOPS[kind],
        detail=str(setting),
        floor=LOOPS[kind],
        tokens_per_s=tuple(run.tokens_per_s for run in runs),
        padding=median([run.padding for run in runs]),
    )
