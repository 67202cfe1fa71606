"""Rounds of schemathesis against a running service, and what came of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = "tests.fuzz.hooks"
TIMEOUT_S = 1800
LAST_LINES = 400


@dataclass(slots=True)
class Fuzzed:
    """What came of some rounds.

    Attributes:
        seeds: What the rounds were started with.
        statuses: How often each operation answered with each status, 0 for no answer.
        failures: What schemathesis printed of rounds that failed, with the requests to repeat.
    """

    seeds: list[int] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many requests were sent."""
        return self.statuses.total()

    def add(self, url: str, *, seed: int, examples: int, key: str | None = None) -> None:
        """Run a round.

        Args:
            url: The service's.
            seed: Makes the round repeatable.
            examples: Random requests an operation at most, beside the examples and the edges of
                its schema.
            key: Sent with every request, but those that are to be refused without.
        """
        with TemporaryDirectory(prefix="fuzz-") as folder:
            report = Path(folder) / "report.ndjson"
            done = subprocess.run(
                _command(url, report, key, seed=seed, examples=examples),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                self.failures.append("\n".join(done.stdout.splitlines()[-LAST_LINES:]))
            if report.exists():
                self.statuses.update(_statuses(report))
        self.seeds.append(seed)


def _command(url: str, report: Path, key: str | None, *, seed: int, examples: int) -> list[str]:
    return [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color"),
        *("run", f"{url}/openapi.json", "--mode", "all", "--workers", "1"),
        *("--seed", str(seed), "--max-examples", str(examples)),
        *("--report-ndjson-path", str(report)),
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
    ]


def _statuses(report: Path) -> Iterator[tuple[str, int]]:
    """Yield the operation and the status of each answer."""
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            scenario: dict[str, Any] = json.loads(line).get("ScenarioFinished", {})
            recorder = scenario.get("recorder", {})
            for interaction in recorder.get("interactions", {}).values():
                response = interaction.get("response") or {}
                yield recorder["label"], response.get("status_code", 0)
