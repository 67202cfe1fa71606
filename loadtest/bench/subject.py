"""What every section measures with: the bundle, the requests and the service's configurations."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.plan import Plan
from loadtest.client import Load
from loadtest.judged import JudgedFolder
from loadtest.lengths import Kind
from loadtest.payloads import Generator
from loadtest.server import Server, our_service
from service.contract.bundle import Bundle
from service.contract.types import RankingExample
from service.scorers.scorer import EngineName, choose_engine

NO_CACHES = ("--token-cache-mb", "0", "--score-cache-mb", "0")


class BenchError(Exception):
    """A measurement that means nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, with which requests, for how long.

    Attributes:
        bundle: The bundle that is served.
        plan: How long and how often.
        services: Configurations of the service by name: flags of `serve`.
        peers: Names of the peers to compare; None for all.
        folder: Real requests; None to generate all.
        cache: Folder of environments, weights and half-done runs.
        say: Shows what is being measured.
    """

    bundle: Bundle
    plan: Plan
    services: dict[str, tuple[str, ...]]
    peers: tuple[str, ...] | None
    folder: JudgedFolder | None
    cache: Path
    say: Callable[[str], None]

    def serve(self, name: str, *flags: str) -> AbstractContextManager[Server]:
        """Start a configuration of the service with more flags."""
        return our_service(self.bundle.root, *self.services[name], *flags)

    def engine(self, name: str) -> EngineName:
        """Return what runs the model in a configuration of the service."""
        flags = self.services[name]
        wanted = flags[flags.index("--engine") + 1] if "--engine" in flags else None
        if wanted is None:
            return choose_engine(self.bundle, "int8")[0]
        return "native" if wanted == "native" else "onnx"

    def requests(self, kind: Kind, *, candidates: int, count: int) -> list[RankingExample]:
        """Return at most count distinct requests, real ones where the data folder has any."""
        if self.folder is not None and kind in self.folder.kinds:
            source = self.folder.requests(kind, candidates=candidates)
        else:
            source = self.generator.requests(kind, candidates=candidates)
        return list(itertools.islice(source, count))

    def origin(self, kind: Kind) -> str:
        """Return a name for where a kind's requests come from."""
        real = self.folder is not None and kind in self.folder.kinds
        return f"{'real' if real else 'generated'} {kind}"

    @property
    def generator(self) -> Generator:
        """A generator of requests for the bundle's tokenizer."""
        return Generator(self.bundle.root / "tokenizer.json")

    def token_counts(self, requests: Sequence[RankingExample]) -> list[int]:
        """Return the tokens of each request's pairs, as the service encodes them."""
        encoder = self.bundle.encoder()
        return [sum(map(len, encoder.encode(r.query, r.candidates))) for r in requests]


def default_services(bundle: Bundle) -> dict[str, tuple[str, ...]]:
    """Return the configurations of the service to compare: the default, and ONNX Runtime's.

    A configuration is named and has flags of `python -m service serve`.
    """
    engine, _ = choose_engine(bundle, "int8")
    return {engine: (), "onnx": ("--engine", "onnx")}


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def require_success(load: Load, what: str) -> Load:
    """Return the load.

    Raises:
        BenchError: A request failed or was answered in part, so that the rest says nothing.
    """
    if load.failures:
        first = load.failures[0]
        raise BenchError(
            f"{what}: {len(load.failures)} of {len(load.answers)} requests failed, the first with "
            f"status {first.status}: {first.text[:300]}"
        )
    if partial := sum(bool(answer.value.get("degraded")) for answer in load.ok):
        raise BenchError(f"{what}: {partial} of {len(load.answers)} answers were degraded")
    return load
