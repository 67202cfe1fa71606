"""How long and how often everything is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One size of the whole bench.

    Attributes:
        rounds: How often what is compared takes turns; a ratio is the median of its rounds.
        window_s: How long one side of a comparison runs in a round.
        engine_rounds: The same for services against bare loops, whose ratio is near 1.
        engine_s: How long one side runs in such a round.
        search_s: How long each setting of a bare loop is tried, twice.
        clients: Clients at saturation.
        overhead_requests: Requests whose time outside the stages is taken.
        counts: Numbers of candidates.
        lengths: Tokens of a document.
        cost_s: How long each number and length is measured in a round.
        log_requests: Requests of the replayed query log.
        log_chunk: Requests of it that one side answers before the other's turn.
    """

    rounds: int = 3
    window_s: float = 4.0
    engine_rounds: int = 7
    engine_s: float = 2.0
    search_s: float = 0.7
    clients: int = 4
    overhead_requests: int = 300
    counts: tuple[int, ...] = (1, 10, 48, 100, 1000)
    lengths: tuple[int, ...] = (16, 64, 128, 200)
    cost_s: float = 1.0
    log_requests: int = 300
    log_chunk: int = 50


FULL = Plan()
QUICK = Plan(
    rounds=1,
    window_s=1.0,
    engine_rounds=1,
    engine_s=0.5,
    search_s=0.2,
    clients=2,
    overhead_requests=20,
    counts=(1, 10),
    lengths=(16, 64),
    cost_s=0.3,
    log_requests=24,
    log_chunk=12,
)
