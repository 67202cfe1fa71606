"""`python -m loadtest shadow`: what a shadow costs the requests, as a report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.arguments import add_command, at_least_one, positive
from loadtest.bench.host import noted
from loadtest.bench.report import host_line
from loadtest.bench.results import Measured
from loadtest.shadow.measure import CANDIDATES, LOAD, SCENARIOS, Plan, Ratio, ShadowResult, measure
from service.contract.bundle import Bundle

REPORT, RAW = "shadow.md", "shadow.json"
EPILOG = f"""\
Requests of {CANDIDATES} candidates arrive open loop at {LOAD:g} of the capacity, which is measured
first, in blocks with the shadow (every request) and without it, by turns and in one process.

examples:
  python -m loadtest shadow                                     half an hour
  python -m loadtest shadow --pairs 2 --seconds 1               is everything in place?
  python -m loadtest shadow --only answers,hung --pairs 40
"""


def add_shadow(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = add_command(
        commands,
        "shadow",
        run,
        about="what shadows, good and bad, cost the requests",
        description="Compare the service's latency with and without a shadow that answers, "
        "dawdles, hangs, crashes or errs, or runs in the same process, and write a report.",
        epilog=EPILOG,
    )
    plan = Plan()
    parser.add_argument(
        "--pairs", type=at_least_one, default=plan.pairs, help="default: %(default)s"
    )
    parser.add_argument(
        "--seconds", type=positive, default=plan.seconds, help="of a block; default: %(default)g"
    )
    parser.add_argument(
        "--only", type=_scenarios, default=SCENARIOS, metavar="A,B", help=", ".join(SCENARIOS)
    )
    parser.add_argument(
        "--other", type=Path, help="bundle for the shadow in the same process; default: the same"
    )
    parser.add_argument(
        "--flags", type=shlex.split, default=[], help="more flags of `python -m service serve`"
    )


def run(options: argparse.Namespace, command: str, console: Console) -> int:
    """Measure, write the report, print its path and return the exit code."""
    plan = Plan(pairs=options.pairs, seconds=options.seconds, scenarios=options.only)
    bundle = Bundle.open(options.bundle)
    measured = noted(
        Measured[ShadowResult],
        "shadow",
        lambda: measure(
            bundle,
            options.other or options.bundle,
            plan,
            options.flags,
            lambda text: console.print(f"shadow: {text}", highlight=False),
        ),
        bundle=bundle,
        command=command,
        requests="generated web",
    )
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / RAW).write_text(measured.model_dump_json(indent=1) + "\n", encoding="utf-8")
    report: Path = options.output / REPORT
    report.write_text(render(measured), encoding="utf-8")
    print(report)
    return 0


def render(measured: Measured[ShadowResult]) -> str:
    """Return the report in Markdown."""
    result = measured.result
    rows = [
        f"| {row.name} | {_shown(row.p50)} | {_shown(row.p99)} | {row.p50_ms:.1f} | "
        f"{row.p99_ms:.1f} | {row.requests} | {row.failed} | "
        f"{', '.join(f'{name} {count}' for name, count in row.outcomes.items()) or '–'} |"
        for row in result.rows
    ]
    parts = [
        "# What a shadow costs",
        f"Written by `python -m loadtest shadow`, not by hand; the raw figures are in `{RAW}`. "
        f"Requests of {result.candidates} candidates arrive open loop, {result.per_s:.0f} a second "
        f"({result.load:g} of capacity), in blocks of {result.seconds:g} s with the shadow for "
        f"every request and without it, {result.pairs} pairs by turns, on the same process. "
        "Ratios are with over without, of all blocks together; in brackets, what 95 % of "
        "resamples of the pairs hold. `nothing` is the service against itself. Client, service "
        "and teacher share the cores, so a remote teacher's own work is in the figures.",
        "\n".join(f"- {line}" for line in (host_line(measured.host), f"`{measured.command}`")),
        "| shadow | p50 | p99 | p50 ms without | p99 ms | requests with it | failed | "
        "what became of the shadow's |\n|---|---|---|---|---|---|---|---|\n" + "\n".join(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _scenarios(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is none of {SCENARIOS}")
    return names
