"""`python -m loadtest triton`: what the way to Triton costs, as a table."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from rich.console import Console

from loadtest.arguments import add_command, at_least_one, positive
from service.contract.bundle import Bundle
from service.contract.triton import MAX_BATCH

if TYPE_CHECKING:
    from loadtest.triton.measure import Row

REPORT = "triton.md"
EPILOG = """\
A Triton on this host serves the bundle's model, as `python -m export triton` wrote it; without
containers, `python -m tests.triton BUNDLE` starts the one of the tests.

examples:
  python -m loadtest triton --url 127.0.0.1:8001
  python -m loadtest triton --url 127.0.0.1:8001 --width 64 --rounds 9
"""


def add_triton(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = add_command(
        commands,
        "triton",
        run,
        about="compare gRPC and shared memory with the engine in process",
        description="Ask the same model in this process, by gRPC and by shared memory, by turns, "
        "and write a table.",
        epilog=EPILOG,
    )
    parser.add_argument("--url", default="127.0.0.1:8001", help="default: %(default)s")
    parser.add_argument("--precision", choices=("fp32", "int8"), help="default: the bundle's")
    parser.add_argument(
        "--pairs",
        type=at_least_one,
        default=MAX_BATCH,
        help="pairs a request; default: %(default)s",
    )
    parser.add_argument(
        "--width", type=at_least_one, default=256, help="tokens a pair; default: %(default)s"
    )
    parser.add_argument("--rounds", type=at_least_one, default=7, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=positive, default=5.0, help="how long a turn lasts; default: %(default)g"
    )


def run(options: argparse.Namespace, command: str, console: Console) -> int:
    """Measure, write the table, print its path and return the exit code."""
    try:
        from loadtest.triton.measure import Plan, WaysError, measure
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install '.[triton]'") from None
    bundle = Bundle.open(options.bundle)
    precision = options.precision or bundle.manifest.preferred_precision
    plan = Plan(
        options.url, precision, options.pairs, options.width, options.rounds, options.seconds
    )
    console.print(f"triton: {plan}", highlight=False)
    try:
        rows = asyncio.run(measure(bundle, plan))
    except WaysError as error:
        raise ValueError(str(error)) from None
    options.output.mkdir(parents=True, exist_ok=True)
    report = options.output / REPORT
    text = f"`{command}`: {bundle.manifest.name}, {precision}, {plan.pairs} × {plan.width} tokens\n"
    report.write_text(f"{text}\n{table(rows)}", encoding="utf-8")
    print(report)
    return 0


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown, ratios being medians of the rounds'."""
    lines = [
        "| clients | | p50 ms | p99 ms | p50 to in process | p50 to gRPC | p99 to gRPC |",
        "|---|---|---|---|---|---|---|",
    ]
    found = {(row.way, row.clients): row for row in rows}
    for row in rows:
        local, grpc = found["in process", row.clients], found["gRPC", row.clients]
        p50, p99 = row.middle_ms
        lines.append(
            f"| {row.clients} | {row.way} | {p50:.3g} | {p99:.3g} | {row.ratio(local):.3f} "
            f"| {row.ratio(grpc):.3f} | {row.ratio(grpc, 99):.3f} |"
        )
    return "\n".join(lines) + "\n"
