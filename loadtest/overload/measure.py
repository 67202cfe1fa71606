"""The loads: capacity first, then multiples of it, the return from the largest, and a burst."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadtest.arrivals import Schedule, burst, merged, poisson
from loadtest.bench.subject import NO_CACHES, require_success
from loadtest.busy import Busy
from loadtest.client import drive
from loadtest.metrics import Counts, read_counts
from loadtest.open_loop import OpenLoad, send
from loadtest.overload.results import Capacity, OverloadResult, Recovery, Round, Step
from loadtest.overload.summary import recovery_of, step_of
from loadtest.payloads import Generator, rank_body
from loadtest.server import our_service
from service.contract.bundle import Bundle

CANDIDATES = 48
TOP_K = 10
BODIES = 600
"""Distinct requests, sent in turn: with the caches off, each costs the model anew."""

FACTORS = (0.5, 0.9, 1.0, 1.5, 2.0, 5.0)
LONG = (2.0, 5.0)
"""The loads that a long run holds."""

CALM = 0.5
"""Of capacity: the load after and around too much."""

BURST = "burst"
BURST_S = 2.0
"""A burst brings that many seconds of work at once."""

CLIENTS = 8
"""That measure the capacity: enough to keep the engine busy while answers are on their way."""

WARM_UP_SHARE, MAX_WARM_UP_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        seconds: How long a load lasts.
        long_s: How long 2× and 5× last.
        calm_s: How long the load after too much, and the measurement of the capacity, last.
        rounds: How often everything is measured.
        deadline_s: Every request's deadline.
    """

    seconds: float = 20.0
    long_s: float = 20.0
    calm_s: float = 8.0
    rounds: int = 2
    deadline_s: float = 0.5


def measure(
    bundle: Bundle, plan: Plan, flags: Sequence[str], say: Callable[[str], None]
) -> OverloadResult:
    """Start the service, and return what it did under every load.

    Raises:
        ServerError: The service did not get ready.
        BenchError: It failed a request while the capacity was measured.
    """
    requests = Generator(bundle.root / "tokenizer.json").requests("web", candidates=CANDIDATES)
    bodies = [rank_body(request) for request in itertools.islice(requests, BODIES)]
    with our_service(bundle.root, *NO_CACHES, *flags) as server:
        trial = _Trial(server.url, bodies, plan, say)
        rounds = [trial.round(number) for number in range(plan.rounds)]
    return OverloadResult(
        candidates=CANDIDATES,
        deadline_ms=1000 * plan.deadline_s,
        flags=" ".join(flags),
        rounds=tuple(rounds),
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A load, and what the service counted and the cores did meanwhile."""

    load: OpenLoad
    counts: tuple[Counts, Counts]
    busy: tuple[Busy, Busy]

    @property
    def wasted_share(self) -> float | None:
        before, after = self.counts
        return after.wasted_share_since(before)

    @property
    def ranked(self) -> float:
        before, after = self.counts
        return after.ranked - before.ranked

    @property
    def others_cpu(self) -> float | None:
        (before, after), (began, ended) = self.counts, self.busy
        return ended.others_share_since(began, after.cpu_s - before.cpu_s)


class _Trial:
    """A running service and what it is asked."""

    def __init__(
        self, url: str, bodies: Sequence[bytes], plan: Plan, say: Callable[[str], None]
    ) -> None:
        self._url = url
        self._patient = [_with(body, top_k=TOP_K) for body in bodies]
        deadline_ms = 1000 * plan.deadline_s
        self._hurried = [_with(body, top_k=TOP_K, deadline_ms=deadline_ms) for body in bodies]
        self._plan = plan
        self._say = say

    def round(self, number: int) -> Round:
        """Return all loads, once; number makes its arrivals different from other rounds'."""
        self._announce(number, "capacity")
        capacity = self._capacity()
        seeds = itertools.count(100 * number)
        found = []
        for factor in FACTORS:
            self._announce(number, f"{factor:g}×")
            found.append(self._multiple(factor, capacity.requests_per_s, seeds))
        self._announce(number, BURST)
        found.append(self._burst(capacity.requests_per_s, seeds))
        return Round(
            capacity=capacity,
            steps=tuple(step for step, _ in found),
            recoveries=tuple(recovery for _, recovery in found if recovery),
        )

    def _multiple(
        self, factor: float, capacity_per_s: float, seeds: Iterator[int]
    ) -> tuple[Step, Recovery | None]:
        """Offer a multiple of the capacity; after the largest, watch the way back."""
        name, plan = f"{factor:g}×", self._plan
        seconds = plan.long_s if factor in LONG else plan.seconds
        schedule = poisson(factor * capacity_per_s, seconds, seed=next(seeds))
        window_s = min(WARM_UP_SHARE * seconds, MAX_WARM_UP_S), seconds
        if factor < FACTORS[-1]:
            return self._step(self._send(schedule), name, factor, window_s), None
        calm = poisson(CALM * capacity_per_s, plan.calm_s, seed=next(seeds), start_s=seconds)
        seen = self._send(merged(schedule, calm))
        recovery = self._recovery(seen, name, seconds, seconds + plan.calm_s)
        return self._step(seen, name, factor, window_s), recovery

    def _burst(self, capacity_per_s: float, seeds: Iterator[int]) -> tuple[Step, Recovery]:
        """Offer little, and much of it at one moment."""
        at_s, until_s = self._plan.calm_s / 2, 1.5 * self._plan.calm_s
        many = burst(math.ceil(BURST_S * capacity_per_s), at_s=at_s)
        schedule = merged(poisson(CALM * capacity_per_s, until_s, seed=next(seeds)), many)
        seen = self._send(schedule)
        factor = len(schedule) / until_s / capacity_per_s
        step = self._step(seen, BURST, factor, (0.0, until_s))
        return step, self._recovery(seen, BURST, at_s, until_s)

    def _announce(self, number: int, load: str) -> None:
        self._say(f"round {number + 1} of {self._plan.rounds}: {load}")

    def _capacity(self) -> Capacity:
        url = f"{self._url}/rank"
        drive(url, self._patient, clients=CLIENTS, seconds=self._plan.calm_s / 4)  # warm
        load = drive(url, self._patient, clients=CLIENTS, seconds=self._plan.calm_s)
        answers = require_success(load, "capacity").ok
        tokens = sum(answer.value["usage"]["prompt_tokens"] for answer in answers)
        return Capacity(
            requests_per_s=len(answers) / load.wall_s, tokens_per_s=tokens / load.wall_s
        )

    def _send(self, schedule: Schedule) -> _Seen:
        before, began = read_counts(self._url), Busy.now()
        load = send(f"{self._url}/rank", self._hurried, schedule)
        return _Seen(load, (before, read_counts(self._url)), (began, Busy.now()))

    def _step(self, seen: _Seen, name: str, factor: float, window_s: tuple[float, float]) -> Step:
        return step_of(
            seen.load,
            name=name,
            factor=factor,
            window_s=window_s,
            deadline_s=self._plan.deadline_s,
            wasted_share=seen.wasted_share,
            ranked=seen.ranked,
            others_cpu=seen.others_cpu,
        )

    def _recovery(self, seen: _Seen, name: str, ended_s: float, until_s: float) -> Recovery:
        return recovery_of(
            seen.load,
            name=name,
            ended_s=ended_s,
            until_s=until_s,
            deadline_s=self._plan.deadline_s,
        )


def _with(body: bytes, **fields: float) -> bytes:
    return json.dumps({**json.loads(body), **fields}).encode()
