"""What a shadow costs the requests it shadows: blocks with and without it, by turns."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from loadtest.arrivals import poisson
from loadtest.bench.results import Part
from loadtest.bench.subject import NO_CACHES, BenchError, require_success
from loadtest.client import drive
from loadtest.open_loop import OpenLoad, send
from loadtest.payloads import Generator, rank_body
from loadtest.server import ROOT, our_service, running
from loadtest.shadow.teacher import MODES
from loadtest.statistics import percentile
from service.contract.bundle import Bundle

CANDIDATES = 6
"""Small requests: what is added to each weighs most there."""

BODIES = 400
LOAD = 0.4
"""Of capacity, offered open loop."""

CAPACITY_S = 4.0
RESAMPLES = 2_000

NOTHING, LOCAL = "nothing", "in this process"
SCENARIOS = (NOTHING, *MODES, LOCAL)
"""`nothing` compares the service with itself: how far chance alone goes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        pairs: Blocks with the shadow, each beside one without.
        seconds: How long a block lasts.
        scenarios: Which shadows.
    """

    pairs: int = 20
    seconds: float = 4.0
    scenarios: tuple[str, ...] = SCENARIOS


class Ratio(Part):
    """With the shadow over without it: of all blocks, and what 95 % of resampled pairs hold."""

    value: float
    low: float
    high: float


class ScenarioRow(Part):
    """What one shadow cost.

    Attributes:
        name: Which.
        requests: Answered with it.
        failed: Not answered with 200, with it.
        p50_ms: Without it.
        p99_ms: Without it.
        p50: Ratio of the medians.
        p99: Ratio of the 99th percentiles.
        outcomes: What became of the shadow's requests.
    """

    name: str
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    p50: Ratio
    p99: Ratio
    outcomes: dict[str, int]


class ShadowResult(Part):
    """What every shadow cost."""

    candidates: int
    per_s: float
    load: float
    pairs: int
    seconds: float
    rows: tuple[ScenarioRow, ...]


def measure(
    bundle: Bundle, other: Path, plan: Plan, flags: Sequence[str], say: Callable[[str], None]
) -> ShadowResult:
    """Start the service with each shadow in turn, and return what it cost.

    Args:
        bundle: Served.
        other: The bundle that is the shadow in the same process.
        plan: How much is measured.
        flags: More flags of `serve`.
        say: Told how far it is.

    Raises:
        ServerError: Something did not get ready.
        BenchError: It failed a request while the capacity was measured.
    """
    requests = Generator(bundle.root / "tokenizer.json").requests("web", candidates=CANDIDATES)
    bodies = [rank_body(request) for request in itertools.islice(requests, BODIES)]
    with our_service(bundle.root, *NO_CACHES, *flags) as server:
        drive(f"{server.url}/rank", bodies, clients=4, seconds=CAPACITY_S / 4)
        load = drive(f"{server.url}/rank", bodies, clients=4, seconds=CAPACITY_S)
        per_s = LOAD * len(require_success(load, "capacity").ok) / load.wall_s
    rows = []
    for name in plan.scenarios:
        say(f"{name}: {plan.pairs} pairs of {plan.seconds:g} s at {per_s:.0f} requests/s")
        with _shadow(name, other) as shadow:
            more = ("--admin", "true", "--shadow-sample", "0", *shadow)
            with our_service(bundle.root, *NO_CACHES, *more, *flags) as server:
                rows.append(_row(name, server.url, bodies, per_s, plan))
    return ShadowResult(
        candidates=CANDIDATES,
        per_s=per_s,
        load=LOAD,
        pairs=plan.pairs,
        seconds=plan.seconds,
        rows=tuple(rows),
    )


@contextlib.contextmanager
def _shadow(name: str, other: Path) -> Iterator[tuple[str, ...]]:
    """Start a scenario's teacher, and yield the flags of the service beside it."""
    if name in (NOTHING, LOCAL):
        yield ("--shadow", str(other.resolve())) if name == LOCAL else ()
        return
    command = [sys.executable, "-m", "loadtest.shadow.teacher", "--port", "{port}", "--mode", name]
    with running(command, ready="/", cwd=ROOT) as teacher:
        yield ("--shadow-url", teacher.url, "--shadow-protocol", "tei")


def _row(name: str, url: str, bodies: Sequence[bytes], per_s: float, plan: Plan) -> ScenarioRow:
    without: list[list[float]] = []
    shadowed: list[list[float]] = []
    failed = 0
    for number in range(plan.pairs):
        schedule = poisson(per_s, plan.seconds, seed=number)
        for on in (False, True) if number % 2 else (True, False):
            _sample(url, 1.0 if on else 0.0)
            load = send(f"{url}/rank", bodies, schedule)
            (shadowed if on else without).append(_latencies(load))
            failed += on * (len(load.arrivals) - load.outcomes["ok"])
    flat = [latency for block in without for latency in block]
    return ScenarioRow(
        name=name,
        requests=sum(map(len, shadowed)),
        failed=failed,
        p50_ms=round(1000 * percentile(flat, 50), 3),
        p99_ms=round(1000 * percentile(flat, 99), 3),
        p50=ratio(without, shadowed, 50),
        p99=ratio(without, shadowed, 99),
        outcomes=_outcomes(url),
    )


def ratio(
    without: Sequence[Sequence[float]], shadowed: Sequence[Sequence[float]], percent: float
) -> Ratio:
    """Return the ratio of a percentile of all blocks, and its interval over resampled pairs.

    Args:
        without: Latencies of each block without the shadow.
        shadowed: Of the one beside it, with.
        percent: Which percentile.
    """
    base, with_it = ([np.array(block) for block in blocks] for blocks in (without, shadowed))
    draw = np.random.default_rng(0)

    def of(places: Sequence[int]) -> float:
        below, above = (
            np.percentile(np.concatenate([blocks[place] for place in places]), percent)
            for blocks in (base, with_it)
        )
        return float(above / below)

    n = len(base)
    found = [of(draw.integers(n, size=n).tolist()) for _ in range(RESAMPLES)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Ratio(value=of(range(n)), low=float(low), high=float(high))


def _latencies(load: OpenLoad) -> list[float]:
    found = [arrival.latency_s for arrival in load.arrivals if arrival.outcome == "ok"]
    if not found:
        raise BenchError("a block without an answer")
    return found


def _sample(url: str, share: float) -> None:
    httpx.put(f"{url}/admin/shadow", json={"sample": share}).raise_for_status()


def _outcomes(url: str) -> dict[str, int]:
    """Return how many requests the shadow was offered, by what became of them."""
    found = {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("disranker_shadow_requests_total{"):
            labels, _, value = line.partition("{")[2].rpartition("} ")
            outcome, reason = (part.split('"')[1] for part in labels.split(","))
            if float(value) and reason != "sample":
                found[f"{outcome} {reason}".strip()] = int(float(value))
    return found
