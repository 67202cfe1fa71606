"""The report of a load test by users: thresholds, and the run by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.goals import Verdict
from loadtest.bench.report import goals_table
from loadtest.figure import BLUE, GREY, RED, Figure
from loadtest.statistics import percentile
from loadtest.users.slo import Ended, Slo

REPORT, PLOT = "loadtest.md", "loadtest.png"
BIN_S = 1.0


@dataclass(frozen=True, slots=True)
class UsersRun:
    """A load test.

    Attributes:
        requests: All requests, in the order of their ends.
        verdicts: The thresholds, held against them.
        slo: The thresholds.
        about: What was run, a line each.
    """

    requests: Sequence[Ended]
    verdicts: Sequence[Verdict]
    slo: Slo
    about: Sequence[str]


def write(run: UsersRun, folder: Path) -> Path:
    """Write the report and its plot into a folder, and return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw(run, folder / PLOT)
    failed = sum(not request.ok for request in run.requests)
    parts = [
        "# Load test",
        "\n".join(f"- {line}" for line in run.about),
        f"{len(run.requests)} requests, {failed} of them not answered as asked. Users wait for "
        "their answer before they ask again, so a service that stalls is asked less; for what more "
        "users would have seen, `python -m loadtest overload` arrives open loop.",
        goals_table(run.verdicts),
        f"![load test]({PLOT})",
    ]
    report = folder / REPORT
    report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return report


def _draw(run: UsersRun, path: Path) -> None:
    last_s = run.requests[-1].at_s if run.requests else 0.0
    members: list[list[Ended]] = [[] for _ in range(int(last_s / BIN_S) + 1)]
    for request in run.requests:
        members[int(request.at_s / BIN_S)].append(request)
    at_s = [BIN_S * number for number in range(len(members))]
    with Figure(path, (10, 4), columns=2) as (rate, latency):
        good = [sum(request.ok for request in found) / BIN_S for found in members]
        bad = [sum(not request.ok for request in found) / BIN_S for found in members]
        rate.step(at_s, good, where="post", color=BLUE, label="answered")
        rate.step(at_s, bad, where="post", color=RED, label="failed")
        rate.axhline(run.slo.requests_per_s, color=GREY, linestyle=":", label="aim")
        rate.set(xlabel="s", ylabel="requests/s", ylim=(0, None))
        for percent, colour in ((50, BLUE), (99, RED)):
            values = [
                percentile([1000 * request.latency_s for request in found if request.ok], percent)
                for found in members
            ]
            limit_ms = run.slo.p50_ms if percent == 50 else run.slo.p99_ms
            middles = [start_s + BIN_S / 2 for start_s in at_s]
            latency.plot(middles, values, ".", color=colour, label=f"p{percent} of each second")
            latency.axhline(
                limit_ms, color=colour, linestyle=":", label=f"p{percent} aim, whole run"
            )
        latency.set(xlabel="s", ylabel="ms", yscale="log")
        for axes in (rate, latency):
            axes.legend(fontsize=8)
