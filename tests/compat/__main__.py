"""`make compat`: every rerank client in an environment of its own, against a running service.

Prints what was found, and writes it into docs/clients.md where every check of every client passed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtest.environments import EnvironmentMissingError, python_of
from loadtest.server import ROOT, ServerError
from tests.compat.clients import CLIENTS
from tests.compat.programs.checks import CHECKS
from tests.compat.report import write
from tests.compat.run import CACHE, Report, try_client
from tests.compat.services import services

DOCUMENT = ROOT / "docs" / "clients.md"
COLOURS = {"ok": "green", "failed": "red", "unsupported": "dim"}


def main() -> int:
    """Run the clients; return 1 where a check failed, 2 where one could not be run."""
    options = parse()
    chosen = [c for c in CLIENTS if options.only.lower() in f"{c.name} {c.path}".lower()]
    progress = Console(stderr=True)
    try:
        for requirements in dict.fromkeys(client.requirements for client in chosen):
            progress.print(f"installing {requirements.stem}")
            python_of(requirements, options.cache)
        with services() as running:
            reports = []
            for client in chosen:
                progress.print(f"running {client.name} at {client.path}", highlight=False)
                reports.append(try_client(client, running, options.cache))
    except (EnvironmentMissingError, ServerError) as error:
        progress.print(str(error))
        return 2
    show(reports)
    if not all(report.ok for report in reports):
        return 1
    if not options.only:
        write(DOCUMENT, reports)
    return 0


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--only", default="", help="only clients with this in their name or path")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the environments")
    return parser.parse_args()


def show(reports: list[Report]) -> None:
    """Print the table, then what failed or is not supported, and why."""
    table = Table("client", "version", "path", *CHECKS)
    for report in reports:
        states = [finding.state for finding in report.findings.values()]
        marks = [f"[{COLOURS[s]}]{'n/a' if s == 'unsupported' else s}[/]" for s in states]
        table.add_row(report.client.name, report.version, report.client.path, *marks)
    console = Console(width=150)
    console.print(table)
    for report in reports:
        notes = [f"{f.check}: {f.note}" for f in report.findings.values() if f.note]
        if notes:
            line = f"{report.client.name} ({report.client.path}): {'; '.join(notes)}"
            console.print(line, markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
