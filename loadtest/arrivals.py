"""When requests arrive: schedules that no answer, fast or slow, can change."""

from __future__ import annotations

import heapq

import numpy as np

Schedule = tuple[float, ...]
"""When each request is due, in seconds since the load begins, rising."""


def poisson(per_s: float, seconds: float, *, seed: int, start_s: float = 0.0) -> Schedule:
    """Return arrivals of many independent users: exponential gaps, equal for equal seeds.

    Args:
        per_s: Mean arrivals a second.
        seconds: How long they go on; their number varies.
        seed: Of the gaps.
        start_s: When they begin.
    """
    rng = np.random.default_rng(seed)
    due_s: list[float] = []
    now = rng.exponential(1 / per_s)
    while now < seconds:
        due_s.append(start_s + now)
        now += rng.exponential(1 / per_s)
    return tuple(due_s)


def constant(per_s: float, seconds: float, *, start_s: float = 0.0) -> Schedule:
    """Return arrivals at equal gaps, the first at the start."""
    return tuple(start_s + number / per_s for number in range(round(per_s * seconds)))


def burst(count: int, *, at_s: float = 0.0) -> Schedule:
    """Return arrivals all at one moment."""
    return (at_s,) * count


def merged(*schedules: Schedule) -> Schedule:
    """Return several schedules at once."""
    return tuple(heapq.merge(*schedules))
