"""Latency and throughput against other rerankers with the same weights and requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.bench.bare import bare_loop
from loadtest.bench.results import PeerRow, PeersResult
from loadtest.bench.subject import NO_CACHES, BenchError, Subject, cores, require_success
from loadtest.client import Answer, Load, drive
from loadtest.environments import EnvironmentMissingError, python_of, version_of
from loadtest.payloads import rank_body
from loadtest.peers.peer import ENVIRON, PEERS, Peer
from loadtest.server import ROOT, Server, ServerError, running
from loadtest.statistics import median
from loadtest.weights import Weights, prepare_weights
from service.contract.agreement import kendall_tau_b
from service.contract.template import document_text
from service.contract.types import RankingExample

CANDIDATES = 48
REQUESTS = 60
COMPARED = 6
"""Requests whose rankings are compared, and which warm a server up."""

Bodies = Sequence[bytes]


@dataclass(slots=True)
class _Contestant:
    """A running server and what was seen of it."""

    row: PeerRow
    server: Server | None
    path: str
    bodies: Bodies
    score_of: Callable[[Any], list[float]]
    alone: list[Load] = field(default_factory=list)
    crowded: list[Load] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)

    def drive(self, bodies: Bodies, **how: Any) -> Load:
        """Put load on the server while it has its turn."""
        assert self.server is not None  # noqa: S101
        with self.server.turn() as url:
            return drive(url + self.path, bodies, **how)


def measure(subject: Subject) -> PeersResult:
    """Return all servers' latency and throughput, taking turns, one running at a time."""
    requests = subject.requests("passage", candidates=CANDIDATES, count=REQUESTS)
    weights = prepare_weights(subject.bundle, subject.cache)
    plan = subject.plan
    with contextlib.ExitStack() as stack:
        ours = _services(subject, stack, requests)
        everyone = [*ours, *_peers(subject, stack, weights, requests)]
        for one in everyone:
            subject.say(f"{one.row.name}: warming up")
            _compare(one)
        there = [one for one in everyone if one.server is not None]
        for number in range(plan.rounds):
            for one in there:
                subject.say(f"round {number + 1}: {one.row.name}, one client")
                one.alone.append(one.drive(one.bodies, seconds=plan.window_s))
                subject.say(f"round {number + 1}: {one.row.name}, {plan.clients} clients")
                load = one.drive(one.bodies, clients=plan.clients, seconds=plan.window_s)
                one.crowded.append(load)
    subject.say("scoring with the fp32 weights")
    reference = _fp32_scores(subject, weights, requests[:COMPARED])
    rows = tuple(_row(one, ours[0].scores, reference) for one in everyone)
    for row in rows[: len(ours)]:
        if row.failures:
            raise BenchError(f"{row.name}: {row.failures} requests failed")
    counts = subject.token_counts(requests)
    pair_tokens = sum(counts) / sum(len(r.candidates) for r in requests)
    return PeersResult(candidates=CANDIDATES, pair_tokens=pair_tokens, rows=rows)


def _services(
    subject: Subject, stack: contextlib.ExitStack, requests: Sequence[RankingExample]
) -> list[_Contestant]:
    bodies = [rank_body(request) for request in requests]
    found = []
    for name, flags in subject.services.items():
        server = stack.enter_context(subject.serve(name, *NO_CACHES))
        detail = f"`serve {' '.join((*flags, *NO_CACHES))}`"
        row = PeerRow(name=name, engine="ours", detail=detail)
        found.append(_Contestant(row, server, "/rank", bodies, _rank_scores))
    return found


def _peers(
    subject: Subject,
    stack: contextlib.ExitStack,
    weights: Weights,
    requests: Sequence[RankingExample],
) -> list[_Contestant]:
    bodies = [_rerank_body(request) for request in requests]
    found = []
    for peer in PEERS:
        if subject.peers is not None and peer.environment not in subject.peers:
            continue
        subject.say(f"{peer.name}: environment and start")
        detail, missing, server = peer.settings, "", None
        try:
            python = python_of(peer.requirements, subject.cache)
            detail = f"{peer.package} {version_of(python, peer.package)}; {peer.settings}"
            server = stack.enter_context(_start(peer, python, weights, subject.cache))
        except (EnvironmentMissingError, ServerError) as error:
            missing = " ".join(str(error).replace(str(subject.cache), "CACHE").split())
        row = PeerRow(name=peer.name, engine=peer.engine, detail=detail, missing=missing)
        found.append(_Contestant(row, server, peer.path, bodies, _rerank_scores))
    return found


def _start(
    peer: Peer, python: Path, weights: Weights, cache: Path
) -> contextlib.AbstractContextManager[Server]:
    threads = cores()
    own = peer.program.startswith("loadtest.")
    return running(
        peer.command(python, weights, threads),
        ready=peer.ready,
        # Infinity finds an ONNX file only in its working directory.
        cwd=ROOT if own else peer.folder(weights),
        environ={
            **ENVIRON,
            "OMP_NUM_THREADS": str(threads),
            "HF_HOME": str((cache / "hf").resolve()),
        },
    )


def _compare(one: _Contestant) -> None:
    """Keep a server's scores of the first requests, or why it has none."""
    if one.server is None:
        return
    try:
        load = require_success(one.drive(one.bodies[:COMPARED]), one.row.name)
    except BenchError as error:
        if one.row.engine == "ours":
            raise
        one.row = one.row.model_copy(update={"missing": " ".join(str(error).split())})
        one.server = None
        return
    by_body = {answer.body: answer for answer in load.ok}
    one.scores = [one.score_of(by_body[body].value) for body in sorted(by_body)]


def _row(
    one: _Contestant, ours: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]
) -> PeerRow:
    if one.server is None:
        return one.row
    answers: list[Answer] = [answer for load in one.alone for answer in load.ok]
    return one.row.model_copy(
        update={
            "latencies_ms": tuple(1000 * answer.latency_s for answer in answers),
            "requests_per_s": tuple(len(load.ok) / load.wall_s for load in one.crowded),
            "tau_ours": _mean_tau(one.scores, ours),
            "tau_fp32": _mean_tau(one.scores, reference),
            "client_cpu": median([load.cpu_share for load in one.crowded]),
            "failures": sum(len(load.failures) for load in (*one.alone, *one.crowded)),
        }
    )


def _mean_tau(scores: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    taus = [kendall_tau_b(a, b) for a, b in zip(scores, others, strict=True)]
    return float(np.mean(taus))


def _fp32_scores(
    subject: Subject, weights: Weights, requests: Sequence[RankingExample]
) -> list[list[float]]:
    encoder = subject.bundle.encoder()
    pairs = [pair for r in requests for pair in encoder.encode(r.query, r.candidates)]
    with bare_loop(weights.fp32 / "model.onnx", pairs) as loop:
        flat = iter(loop.scores())
    return [[next(flat) for _ in request.candidates] for request in requests]


def _rerank_body(example: RankingExample) -> bytes:
    asked = {
        "model": "bench",
        "query": example.query,
        "documents": [document_text(candidate) for candidate in example.candidates],
        "raw_scores": True,
    }
    return json.dumps(asked).encode()


def _rank_scores(answer: Any) -> list[float]:
    return _by_index(answer, "score")


def _rerank_scores(answer: Any) -> list[float]:
    return _by_index(answer, "relevance_score")


def _by_index(answer: Any, field_name: str) -> list[float]:
    scores = {row["index"]: float(row[field_name]) for row in answer["results"]}
    if sorted(scores) != list(range(len(scores))):
        raise BenchError(f"an answer without every document: {sorted(scores)}")
    return [scores[index] for index in range(len(scores))]
