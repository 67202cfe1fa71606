"""What was aimed for, what was measured, and by how much a goal is missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.bench.results import EngineResult, FrontEndResult, Measured, PeersResult
from loadtest.statistics import median_ratio, percentile

BARE_SHARE = 0.90
PLAIN_INT8_FACTOR = 1.2
TORCH_FACTOR = 3.0
ONNX_FACTOR = 1.5
OVERHEAD_P50_MS = 1.0
OVERHEAD_P99_MS = 2.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal held against a measurement.

    Attributes:
        goal: In words.
        name: The configuration of the service.
        found: What was measured.
        limit: What was aimed for.
        at_most: Whether the goal is an upper limit.
        unit: Of both, as it is written after a number.
    """

    goal: str
    name: str
    found: float
    limit: float
    at_most: bool = False
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.found <= self.limit if self.at_most else self.found >= self.limit

    @property
    def words(self) -> str:
        """The verdict for a table, with the distance where the goal is missed."""
        if self.met:
            return "met"
        if not self.limit:
            return "**missed**"
        return f"**missed by {100 * abs(1 - self.found / self.limit):.0f} %**"


def verdicts(results: Mapping[str, Measured[Any]]) -> Iterator[Verdict]:
    """Yield a verdict for each goal that the measured sections can decide."""
    if "engine" in results:
        yield from _engine(results["engine"].result)
    if "peers" in results:
        yield from _peers(results["peers"].result)
    if "front-end" in results:
        yield from _front_end(results["front-end"].result)


def _engine(result: EngineResult) -> Iterator[Verdict]:
    floors = {row.name: row for row in result.loops.values()}
    for row in result.services:
        share = median_ratio(row.tokens_per_s, floors[row.floor].tokens_per_s)
        goal = "tokens/s through HTTP, caches cold, over the bare loop on the same engine"
        yield Verdict(goal, row.name, share, BARE_SHARE)
    for kind in ("native", "onnx"):
        if kind in result.loops:
            loop, plain = result.loops[kind], result.loops["plain"]
            factor = median_ratio(loop.tokens_per_s, plain.tokens_per_s)
            goal = "tokens/s of the bare engine over plain dynamic int8 in ONNX Runtime"
            yield Verdict(goal, kind, factor, PLAIN_INT8_FACTOR)


def _peers(result: PeersResult) -> Iterator[Verdict]:
    for row in result.rows:
        if row.engine != "ours":
            continue
        for engine, limit in (("torch", TORCH_FACTOR), ("onnx", ONNX_FACTOR)):
            factors = {
                peer.name: median_ratio(row.requests_per_s, peer.requests_per_s)
                for peer in result.rows
                if peer.engine == engine and peer.requests_per_s
            }
            if factors:
                nearest = min(factors, key=factors.__getitem__)
                goal = f"requests/s over the best {engine} peer, {nearest}"
                yield Verdict(goal, row.name, factors[nearest], limit)


def _front_end(result: FrontEndResult) -> Iterator[Verdict]:
    for row in result.rows:
        for percent, limit in ((50, OVERHEAD_P50_MS), (99, OVERHEAD_P99_MS)):
            goal = f"p{percent} outside tokenising, queue and inference, client's clock"
            found = percentile(row.overheads_ms, percent)
            yield Verdict(goal, row.name, found, limit, at_most=True, unit=" ms")
