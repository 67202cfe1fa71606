"""The plots of an overload run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from loadtest.figure import BLACK, BLUE, GREY, RED, Figure
from loadtest.overload.measure import BURST
from loadtest.overload.results import OverloadResult, Recovery, Step
from loadtest.overload.summary import BIN_S
from loadtest.overload.tables import middle


def draw(result: OverloadResult, folder: Path) -> list[str]:
    """Write the plots and return their names."""
    _goodput(result, folder / "overload-goodput.png")
    _latency(result, folder / "overload-latency.png")
    names = ["overload-goodput.png", "overload-latency.png"]
    for recovery in result.rounds[0].recoveries:
        name = f"overload-after-{recovery.load.replace('×', 'x')}.png"
        _recovery(recovery, result.deadline_ms, folder / name)
        names.append(name)
    return names


def _goodput(result: OverloadResult, path: Path) -> None:
    with Figure(path, (8, 4)) as (axes,):
        for number, part in enumerate(result.rounds):
            steps = [step for step in part.steps if step.name != BURST]
            peak = part.capacity.tokens_per_s
            shares = [step.good_tokens_per_s / peak for step in steps]
            label = "" if number else "answered within the deadline"
            axes.plot([s.factor for s in steps], shares, "o-", color=BLUE, label=label)
        top = max(step.factor for step in result.rounds[0].steps)
        axes.plot([0, 1, top], [0, 1, 1], ":", color=GREY, label="ideal")
        axes.set(
            xlabel="offered load over capacity",
            ylabel="goodput over capacity, in tokens",
            xlim=(0, None),
            ylim=(0, None),
        )
        axes.legend(fontsize=8, loc="lower right")


def _latency(result: OverloadResult, path: Path) -> None:
    series: dict[str, tuple[str, Callable[[Step], float | None]]] = {
        "accepted, p50": (BLUE, lambda step: step.accepted_p50_ms),
        "accepted, p99": (RED, lambda step: step.accepted_p99_ms),
        "refused, p50": (GREY, lambda step: step.refused_p50_ms),
        "refused, the service's own time, p50": (BLACK, lambda step: step.handler_p50_ms),
    }
    with Figure(path, (8, 4)) as (axes,):
        names = [step.name for step in result.rounds[0].steps]
        for label, (colour, figure) in series.items():
            values = [middle(result, place, figure) for place in range(len(names))]
            heights = [float("nan") if value is None else value for value in values]
            axes.plot(names, heights, "o-", color=colour, label=label)
        axes.axhline(result.deadline_ms, color=RED, linestyle=":", label="deadline")
        axes.set(xlabel="load", ylabel="ms", yscale="log")
        axes.legend(fontsize=8)


def _recovery(recovery: Recovery, deadline_ms: float, path: Path) -> None:
    with Figure(path, (10, 4), columns=2) as (counts, slowest):
        at_s = [part.at_s for part in recovery.bins]
        due = [b.due / BIN_S for b in recovery.bins]
        good = [b.good / BIN_S for b in recovery.bins]
        counts.step(at_s, due, where="post", color=GREY, label="offered")
        counts.step(at_s, good, where="post", color=BLUE, label="answered in time")
        counts.set(xlabel="s", ylabel="requests/s by when they were due", ylim=(0, None))
        values = [float("nan") if b.slowest_ms is None else b.slowest_ms for b in recovery.bins]
        slowest.plot(at_s, values, ".", color=BLUE, label="slowest accepted")
        slowest.axhline(deadline_ms, color=RED, linestyle=":", label="deadline")
        slowest.set(xlabel="s", ylabel="ms from when it was due", ylim=(0, None))
        for axes in (counts, slowest):
            axes.axvline(recovery.ended_s, color=RED, alpha=0.4, label=f"{recovery.load} ended")
            axes.legend(fontsize=8)
