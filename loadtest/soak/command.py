"""`python -m loadtest soak`: memory over hours, as a report."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from loadtest.arguments import add_command, at_least_one
from loadtest.bench.host import noted
from loadtest.bench.results import Measured
from loadtest.soak.measure import LEAST_MINUTES, measure
from loadtest.soak.report import verdicts, write
from loadtest.soak.results import SoakResult
from service.contract.bundle import Bundle

MISSED = 1
EPILOG = """\
The service is started here, with small caches, and gets requests of every shape. After the warm-up
its resident memory is watched. Then the same, for a sixth of the time, with a service that leaks on
purpose: a watch that did not catch it would prove nothing.

The exit code is 0 where memory stays, the leak is caught and nothing failed, 1 where not, 2 where
the soak could not be run.

examples:
  python -m loadtest soak                 ten minutes: does anything obvious leak?
  python -m loadtest soak --minutes 60    the full soak
"""


def add_soak(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = add_command(
        commands,
        "soak",
        run,
        about="watch a service's memory under requests of every shape",
        description="Watch a service's memory under requests of every shape, and that of one that "
        "leaks.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--minutes",
        type=_long_enough,
        default=10.0,
        help="how long the service is watched; default: %(default)g",
    )
    parser.add_argument(
        "--warm-up-requests",
        type=at_least_one,
        default=2_000,
        help="before memory is watched; default: %(default)s",
    )


def run(options: argparse.Namespace, command: str, console: Console) -> int:
    """Measure, write the report, print its path and return the exit code."""
    bundle = Bundle.open(options.bundle)
    measured = noted(
        Measured[SoakResult],
        "soak",
        lambda: measure(
            bundle,
            minutes=options.minutes,
            warm_up_requests=options.warm_up_requests,
            say=lambda text: console.print(f"soak: {text}", highlight=False),
        ),
        bundle=bundle,
        command=command,
        requests="generated, of every shape",
    )
    print(write(measured, options.output))
    return 0 if all(verdict.met for verdict in verdicts(measured.result)) else MISSED


def _long_enough(text: str) -> float:
    minutes = float(text)
    if not LEAST_MINUTES <= minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not at least {LEAST_MINUTES}, for a trend")
    return minutes
