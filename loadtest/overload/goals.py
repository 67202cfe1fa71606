"""What too much load may cost, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadtest.bench.goals import Verdict
from loadtest.overload.measure import BURST
from loadtest.overload.results import OverloadResult, Recovery, Round, Step
from loadtest.statistics import median

GOODPUT = {"2×": 0.90, "5×": 0.80}
LATE_SHARE = 1.10
HANDLER_MS = 2.0
WASTED_PERCENT = 1.0
RECOVERY_S = 2.0


def verdicts(result: OverloadResult) -> Iterator[Verdict]:
    """Yield a verdict for each goal: the median of the rounds, of each its worst load."""
    for name, limit in GOODPUT.items():
        found = median([share_of_peak(part, name) for part in result.rounds])
        yield Verdict(f"goodput at {name} over its peak, in tokens", "service", found, limit)
    late = _worst(result, lambda step: step.accepted_p99_ms) / result.deadline_ms
    goal = "p99 of accepted requests over their deadline, worst load"
    yield Verdict(goal, "service", late, LATE_SHARE, at_most=True)
    handler_ms = _worst(result, lambda step: None if step.name == BURST else step.handler_p99_ms)
    goal = "p99 of the service's own time for a refusal, worst steady load"
    yield Verdict(goal, "service", handler_ms, HANDLER_MS, at_most=True, unit=" ms")
    handler_ms = _worst(result, lambda step: step.handler_p99_ms if step.name == BURST else None)
    goal = "the same, burst"
    yield Verdict(goal, "service", handler_ms, HANDLER_MS, at_most=True, unit=" ms")
    if all(step.wasted_share is not None for part in result.rounds for step in part.steps):
        wasted = 100 * _worst(result, lambda step: step.wasted_share)
        goal = "tokens run in vain, of all tokens run, worst load"
        yield Verdict(goal, "service", wasted, WASTED_PERCENT, at_most=True, unit=" %")
    for number, load in enumerate(("5×", BURST)):
        recovered_s = median([_seconds(part.recoveries[number]) for part in result.rounds])
        goal = f"until all is answered in time again after {load}"
        yield Verdict(goal, "service", recovered_s, RECOVERY_S, at_most=True, unit=" s")
    goal = "requests sent that got an answer or a refusal"
    yield Verdict(goal, "service", answered_percent(result), 100.0, unit=" %")


def share_of_peak(part: Round, name: str) -> float:
    """Return a load's goodput in tokens over the largest of its round."""
    steady = {s.name: s.good_tokens_per_s for s in part.steps if s.name != BURST}
    return steady[name] / max(steady.values())


def answered_percent(result: OverloadResult) -> float:
    """Return how many of the sent requests were neither lost nor failed, in percent."""
    steps = [step for part in result.rounds for step in part.steps]
    lost = sum(s.outcomes["lost"] + s.outcomes["error"] + s.unanswered for s in steps)
    return 100 * (1 - lost / max(1, sum(s.sent for s in steps)))


def _seconds(recovery: Recovery) -> float:
    """Return its seconds; those that were watched where it did not come back."""
    if recovery.seconds is not None:
        return recovery.seconds
    return recovery.bins[-1].at_s - recovery.ended_s


def _worst(result: OverloadResult, figure: Callable[[Step], float | None]) -> float:
    """Return the median of the rounds' largest figures, 0 where there are none."""
    found = [[f for s in part.steps if (f := figure(s)) is not None] for part in result.rounds]
    return median([max(figures, default=0.0) for figures in found])
