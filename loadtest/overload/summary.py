"""From single requests to a load's figures."""

from __future__ import annotations

import json
from collections.abc import Sequence

from loadtest.open_loop import OUTCOMES, Arrival, OpenLoad
from loadtest.overload.results import Bin, Recovery, Step
from loadtest.statistics import percentile

BIN_S = 0.25
STEADY_S = 1.0
"""Of requests that all were answered in time: the service is back."""


def step_of(
    load: OpenLoad,
    *,
    name: str,
    factor: float,
    window_s: tuple[float, float],
    deadline_s: float,
    wasted_share: float | None,
    ranked: float,
    others_cpu: float | None,
) -> Step:
    """Return a load's figures.

    Args:
        load: What became of its requests.
        name: Its name.
        factor: Mean offered requests over capacity.
        window_s: Requests that were due in it are counted. Answers count for the goodput when
            they came in it, so that neither the warm-up nor what was late adds to it.
        deadline_s: From when a request is due to when its answer is of no use.
        wasted_share: Tokens run in vain, of all.
        ranked: Rankings that the service counted in the whole load.
        others_cpu: Share of all cores that other programs took in the whole load.
    """
    begin_s, end_s = window_s
    due = [a for a in load.arrivals if begin_s <= a.due_s < end_s]
    good = [
        a
        for a in load.arrivals
        if is_good(a, deadline_s) and begin_s <= a.due_s + a.latency_s < end_s
    ]
    accepted_ms = [1000 * a.latency_s for a in due if a.outcome in ("ok", "expired")]
    refused = [a for a in due if a.outcome == "rejected"]
    refused_ms = [1000 * a.latency_s for a in refused]
    handler_ms = [1000 * a.handler_s for a in refused if a.handler_s == a.handler_s]
    counts = {outcome: sum(a.outcome == outcome for a in due) for outcome in OUTCOMES}
    return Step(
        name=name,
        factor=factor,
        seconds=end_s - begin_s,
        scheduled=len(due),
        sent=len(due) - counts["unsent"],
        outcomes=counts,
        good_per_s=len(good) / (end_s - begin_s),
        good_tokens_per_s=sum(map(tokens_of, good)) / (end_s - begin_s),
        accepted_p50_ms=_percentile(accepted_ms, 50),
        accepted_p99_ms=_percentile(accepted_ms, 99),
        refused_p50_ms=_percentile(refused_ms, 50),
        refused_p99_ms=_percentile(refused_ms, 99),
        handler_p50_ms=_percentile(handler_ms, 50),
        handler_p99_ms=_percentile(handler_ms, 99),
        lag_p99_ms=round(1000 * load.lag_p99_s, 3),
        others_cpu=others_cpu,
        behind=load.behind,
        wasted_share=wasted_share,
        unanswered=max(0, round(ranked) - load.outcomes["ok"]),
    )


def recovery_of(
    load: OpenLoad, *, name: str, ended_s: float, until_s: float, deadline_s: float
) -> Recovery:
    """Return how long after too much load the service answered everything again.

    Args:
        load: A load whose requests due after ended_s are few.
        name: Its name.
        ended_s: When there was too much.
        until_s: When the load ended.
        deadline_s: From when a request is due to when its answer is of no use.
    """
    after = [a for a in load.arrivals if a.due_s > ended_s]
    back_s = None
    for first in (a.due_s for a in after if is_good(a, deadline_s)):
        window = [a for a in after if first <= a.due_s < first + STEADY_S]
        if first + STEADY_S <= until_s and all(is_good(a, deadline_s) for a in window):
            back_s = round(first - ended_s, 3)
            break
    return Recovery(
        load=name, ended_s=ended_s, seconds=back_s, bins=_bins(load.arrivals, until_s, deadline_s)
    )


def is_good(arrival: Arrival, deadline_s: float) -> bool:
    """Tell whether a request was answered within its deadline, counted from when it was due."""
    return arrival.outcome == "ok" and arrival.latency_s <= deadline_s


def tokens_of(arrival: Arrival) -> int:
    """Return the ranked tokens of an answer."""
    return int(json.loads(arrival.text)["usage"]["prompt_tokens"])


def _bins(arrivals: Sequence[Arrival], until_s: float, deadline_s: float) -> tuple[Bin, ...]:
    members: list[list[Arrival]] = [[] for _ in range(int(until_s / BIN_S) + 1)]
    for arrival in arrivals:
        members[int(arrival.due_s / BIN_S)].append(arrival)
    return tuple(
        Bin(
            at_s=number * BIN_S,
            due=len(found),
            good=sum(is_good(a, deadline_s) for a in found),
            slowest_ms=_percentile(
                [1000 * a.latency_s for a in found if a.outcome in ("ok", "expired")], 100
            ),
        )
        for number, found in enumerate(members)
    )


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(percentile(values, percent), 3) if values else None
