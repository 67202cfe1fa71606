"""What was found, as a table for people and for docs/clients.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.compat.programs.checks import CHECKS, Finding
from tests.compat.run import Report

BEGIN = "<!-- make compat writes what follows -->"
END = "<!-- until here -->"
WORDS = {"ok": "ok", "failed": "**failed**", "unsupported": "–"}


def table(reports: Sequence[Report]) -> str:
    """Return a Markdown table, one row a client."""
    head = ["client", "package", "setting", "asks", *CHECKS]
    rows = [head, ["---"] * len(head)]
    for report in reports:
        client = report.client
        cells = [client.name, f"{client.package} {report.version}", client.knob, f"`{client.path}`"]
        rows.append(cells + [cell(finding) for finding in report.findings.values()])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(finding: Finding) -> str:
    """Return a finding in a few words."""
    word = WORDS[finding.state]
    if finding.state == "ok":
        return finding.note or word
    return f"{word} {finding.note}".replace("|", "/").replace("\n", " ")


def write(path: Path, reports: Sequence[Report]) -> None:
    """Replace the table in a document."""
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n\n{table(reports)}\n\n{END}{tail}", encoding="utf-8")
