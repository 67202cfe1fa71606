"""An overload run's figures as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loadtest.bench.tables import Cells, table
from loadtest.overload.goals import share_of_peak
from loadtest.overload.measure import BURST
from loadtest.overload.results import OverloadResult, Step
from loadtest.statistics import median


def goodput_table(result: OverloadResult) -> str:
    """Return what was offered, and what came of it: medians of the rounds, counts of all."""
    headings = (
        *("load", "offered requests/s", "sent", "in time", "in time, tokens/s", "of the peak"),
        *("ok", "429", "504", "failed", "lost", "unsent", "tokens in vain", "client late by, p99"),
        "cores taken by others",
    )
    return table(headings, _goodput_rows(result))


def _goodput_rows(result: OverloadResult) -> Iterator[Cells]:
    for place, first in enumerate(result.rounds[0].steps):
        steps = [part.steps[place] for part in result.rounds]
        shares = [share_of_peak(p, first.name) for p in result.rounds if first.name != BURST]
        counts = {o: sum(step.outcomes[o] for step in steps) for o in first.outcomes}
        wasted = middle(result, place, lambda step: step.wasted_share)
        others = middle(result, place, lambda step: step.others_cpu)
        yield (
            first.name,
            f"{median([step.scheduled / step.seconds for step in steps]):.1f}",
            f"{median([step.sent / step.seconds for step in steps]):.1f}",
            f"{median([step.good_per_s for step in steps]):.1f}",
            f"{median([step.good_tokens_per_s for step in steps]):,.0f}",
            f"{median(shares):.2f}" if shares else "",
            str(counts["ok"]),
            str(counts["rejected"]),
            str(counts["expired"]),
            str(counts["error"]),
            str(counts["lost"] + sum(step.unanswered for step in steps)),
            str(counts["unsent"]),
            "" if wasted is None else f"{100 * wasted:.1f} %",
            f"{median([step.lag_p99_ms for step in steps]):.1f} ms",
            "" if others is None else f"{100 * others:.0f} %",
        )


def latency_table(result: OverloadResult) -> str:
    """Return the latencies: medians of the rounds."""
    figures: dict[str, Callable[[Step], float | None]] = {
        "accepted p50 ms": lambda step: step.accepted_p50_ms,
        "p99 ms": lambda step: step.accepted_p99_ms,
        "refused p50 ms": lambda step: step.refused_p50_ms,
        "p99  ms": lambda step: step.refused_p99_ms,
        "in the service p50 ms": lambda step: step.handler_p50_ms,
        "p99   ms": lambda step: step.handler_p99_ms,
    }
    rows = (
        (step.name, *(_ms(middle(result, place, figure)) for figure in figures.values()))
        for place, step in enumerate(result.rounds[0].steps)
    )
    return table(("load", *figures), rows)


def capacity_table(result: OverloadResult) -> str:
    """Return each round's capacity, and how long the service took to come back."""
    headings = ("round", "requests/s", "tokens/s", "back after 5×", "back after the burst")
    rows = []
    for number, part in enumerate(result.rounds, start=1):
        back = (f"{r.seconds:.2f} s" if r.seconds is not None else "not" for r in part.recoveries)
        capacity = part.capacity
        rates = f"{capacity.requests_per_s:.1f}", f"{capacity.tokens_per_s:,.0f}"
        rows.append((str(number), *rates, *back))
    return table(headings, rows)


def middle(
    result: OverloadResult, place: int, figure: Callable[[Step], float | None]
) -> float | None:
    """Return the median over the rounds of a load's figure; None where no round has it."""
    found = [f for part in result.rounds if (f := figure(part.steps[place])) is not None]
    return median(found) if found else None


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
