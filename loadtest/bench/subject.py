"""What every section measures with: the bundle, the requests and the service's configurations."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.plan import Plan
from loadtest.client import Load
from loadtest.judged import JudgedFolder
from loadtest.lengths import Kind
from loadtest.payloads import Generator
from loadtest.server import Server, running
from service.contract.bundle import Bundle
from service.contract.types import RankingExample

ROOT = Path(__file__).parents[2]

SERVICES: dict[str, tuple[str, ...]] = {
    "service": (),
}
"""Configurations of the service to compare, by name: flags of `python -m service serve`."""

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
        command = [sys.executable, "-m", "service", "serve", "--port", "{port}"]
        command += ["--bundle", str(self.bundle.root.resolve()), "--log-level", "error"]
        return running([*command, *self.services[name], *flags], ready="/readyz", cwd=ROOT)

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


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def require_success(load: Load, what: str) -> Load:
    """Return the load.

    Raises:
        BenchError: A request failed, so that the rest says nothing about the service.
    """
    if load.failures:
        first = load.failures[0]
        raise BenchError(
            f"{what}: {len(load.failures)} of {len(load.answers)} requests failed, the first with "
            f"status {first.status}: {first.text[:300]}"
        )
    return load
