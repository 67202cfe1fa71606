"""`python -m loadtest overload`: the service under too much load, as a report."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rich.console import Console

from loadtest.arguments import add_command, at_least_one, positive
from loadtest.bench.host import noted
from loadtest.bench.results import Measured
from loadtest.overload.measure import CANDIDATES, FACTORS, Plan, measure
from loadtest.overload.report import write
from loadtest.overload.results import OverloadResult
from service.contract.bundle import Bundle

LOADS = ", ".join(f"{factor:g}×" for factor in FACTORS)
EPILOG = f"""\
The service is started here, with both caches off; requests of {CANDIDATES} generated candidates
arrive open loop at {LOADS} of the capacity measured first, then in a burst.

examples:
  python -m loadtest overload                            about six minutes
  python -m loadtest overload --minutes 5 --rounds 1     2× and 5× for five minutes each
  python -m loadtest overload --seconds 2 --rounds 1     a minute: is everything in place?
  python -m loadtest overload --flags "--threads 1"      with flags of `python -m service serve`
"""


def add_overload(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = add_command(
        commands,
        "overload",
        run,
        about="offer the service up to five times what it can do",
        description="Offer the service up to five times what it can do, and write a report with "
        "tables and plots.",
        epilog=EPILOG,
    )
    plan = Plan()
    parser.add_argument(
        "--seconds",
        type=positive,
        default=plan.seconds,
        help="how long each load lasts; default: %(default)g",
    )
    parser.add_argument(
        "--minutes", type=positive, help="how long 2× and 5× last; default: as the others"
    )
    parser.add_argument(
        "--rounds", type=at_least_one, default=plan.rounds, help="how often; default: %(default)s"
    )
    parser.add_argument(
        "--deadline-ms",
        type=positive,
        default=1000 * plan.deadline_s,
        help="every request's deadline; default: %(default)g",
    )
    parser.add_argument(
        "--flags", type=shlex.split, default=[], help="more flags of `python -m service serve`"
    )


def run(options: argparse.Namespace, command: str, console: Console) -> int:
    """Measure, write the report, print its path and return the exit code."""
    plan = Plan(
        seconds=options.seconds,
        long_s=60 * options.minutes if options.minutes else options.seconds,
        calm_s=min(Plan().calm_s, options.seconds),
        rounds=options.rounds,
        deadline_s=options.deadline_ms / 1000,
    )
    bundle = Bundle.open(options.bundle)
    measured = noted(
        Measured[OverloadResult],
        "overload",
        lambda: measure(
            bundle,
            plan,
            options.flags,
            lambda text: console.print(f"overload: {text}", highlight=False),
        ),
        bundle=bundle,
        command=command,
        requests="generated web",
    )
    print(write(measured, options.output))
    return 0
