"""What the commands' lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

REPORTS = Path("docs/benchmarks")

Run = Callable[[argparse.Namespace, str, Console], int]
"""A command: given its options, its line for the report and where to tell how far it is."""


def add_command(
    commands: Any,
    name: str,
    run: Run,
    *,
    about: str,
    description: str,
    epilog: str,
    output: Path | None = REPORTS,
) -> argparse.ArgumentParser:
    """Add a command that takes a bundle and writes a report; return its parser.

    Args:
        commands: A parser's commands.
        name: What it is called by.
        run: What it does; returns the exit code.
        about: What it does, in the list of commands.
        description: The same, in its own help.
        epilog: Its help's end.
        output: Where it writes its report; None where it decides later.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=Path("models/default"),
        help="bundle to serve; default: %(default)s",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=output,
        metavar="DIR",
        help=f"where to write the report; default: {output or REPORTS}",
    )
    parser.set_defaults(run=run)
    return parser


def positive(text: str) -> float:
    """Return a number above 0.

    Raises:
        argparse.ArgumentTypeError: It is not.
        ValueError: It is no number.
    """
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def at_least_one(text: str) -> int:
    """Return a whole number from 1 on.

    Raises:
        argparse.ArgumentTypeError: It is below.
        ValueError: It is no whole number.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
