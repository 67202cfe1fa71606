"""Running a client's program, and judging what it and the services say."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from loadtest.environments import python_of, version_of
from loadtest.server import ROOT
from tests.compat.clients import Client
from tests.compat.programs.checks import CHECKS, Finding
from tests.compat.services import Attempt, Services

CACHE = ROOT / ".compat"
TIMEOUT_S = 180
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM asks GitHub for prices
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a client.

    Attributes:
        client: Which.
        version: Of its package; empty where it could not be installed.
        findings: By check.
    """

    client: Client
    version: str
    findings: Mapping[str, Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(finding.state != "failed" for finding in self.findings.values())


def try_client(client: Client, services: Services, cache: Path = CACHE) -> Report:
    """Return how a client got on with the services.

    Raises:
        EnvironmentMissingError: It cannot be installed.
    """
    python = python_of(client.requirements, cache)
    version = version_of(python, client.package)
    mark = services.mark()
    findings = run_program(python, client, services)
    busy, rated = services.since(mark, "busy"), services.since(mark, "serving", key="rated")
    asked = services.since(mark, "serving", key="free")
    findings["ranks"] = on_path(findings["ranks"], asked, client.path)
    findings["429"] = as_often(findings["429"], busy)
    findings["retry"] = told(findings["retry"], rated)
    return Report(client, version, findings)


def run_program(python: Path, client: Client, services: Services) -> dict[str, Finding]:
    """Return what a client's program found, by check; its last words where it ended early."""
    try:
        done = subprocess.run(
            [str(python), "-m", client.module, client.variant],
            input=json.dumps(asdict(services.task)),
            cwd=ROOT,
            env={**os.environ, **OFFLINE},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        words, lines = f"not done after {TIMEOUT_S} s", []
    else:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"check"')]
    found = {finding.check: finding for finding in (Finding(**json.loads(line)) for line in lines)}
    return {name: found.get(name, Finding(name, "failed", words)) for name in CHECKS}


def on_path(finding: Finding, asked: list[Attempt], path: str) -> Finding:
    """Return the finding, failed where the client asked elsewhere than its row says."""
    if finding.state == "ok" and not matches(asked[0].path, path):
        return replace(finding, state="failed", note=f"asked {asked[0].path}")
    return finding


def matches(path: str, pattern: str) -> bool:
    """Return whether a path is a pattern's, in which `…` is any text."""
    begin, _, end = pattern.partition("…")
    return path.startswith(begin) and path.endswith(end) and ("…" in pattern or path == pattern)


def as_often(finding: Finding, busy: list[Attempt]) -> Finding:
    """Return the finding with how often the busy service was asked."""
    if finding.state != "ok":
        return finding
    tries = f"{len(busy)} {'try' if len(busy) == 1 else 'tries'}"
    if len(busy) != finding.tries:
        return replace(finding, state="failed", note=f"{tries}, not {finding.tries}")
    return replace(finding, note=f"{tries}, {finding.note}")


def told(finding: Finding, rated: list[Attempt]) -> Finding:
    """Return the finding with how the client waited for its answer."""
    if finding.state != "ok" or finding.note != "answered":
        return finding
    tries = sum(attempt.path != "/rank" for attempt in rated)
    note = "waits as told" if tries == 2 else f"waits its own time, answered at try {tries}"
    return replace(finding, note=note)
