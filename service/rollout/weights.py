"""The canary's weight as a decider writes it into a file, put into effect."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter
from pydantic import ValidationError

from service.rollout.desired import Desired
from service.rollout.lanes import Lanes
from service.rollout.split import StaleWeightError, Weight

log = logging.getLogger(__name__)

POLL_S = 1.0
MAX_BYTES = 10_000

Outcome = Literal["applied", "stale", "other", "unreadable"]


class WeightsFile:
    """Looks at a file again and again, and applies what is new in it.

    What cannot be read or is older than what is in effect changes nothing. What is meant for
    another canary waits for that one.
    """

    def __init__(self, path: Path | None, lanes: Lanes, registry: CollectorRegistry) -> None:
        """Take a file, or none.

        Args:
            path: The file; it may come later, and be replaced at any time.
            lanes: Whose split is set.
            registry: Gets the metrics.
        """
        self._path = path
        self._lanes = lanes
        self._task: asyncio.Task[None] | None = None
        self._last: tuple[bytes | None, Outcome] | None = None
        self._outcomes = Counter(
            "disranker_split_file_total",
            "Contents of the file with the canary's weight: applied, stale (a later generation is "
            "in effect), other (for another canary) or unreadable.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("applied", "stale", "other", "unreadable"):
            self._outcomes.labels(outcome)

    def start(self) -> None:
        """Begin to look."""
        if self._path is not None:
            self._task = asyncio.create_task(self._watch(self._path), name="weights-file")

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def apply(self, content: bytes | None) -> Outcome:
        """Put a file's content into effect, None for a file that cannot be read."""
        outcome = self._applied(content)
        if (content, outcome) != self._last:
            self._last = content, outcome
            self._outcomes.labels(outcome).inc()
            weight = self._lanes.split.weight
            fields = {"outcome": outcome, "weight": weight.canary, "generation": weight.generation}
            log.info("weights file", extra={"fields": fields})
        return outcome

    def _applied(self, content: bytes | None) -> Outcome:
        try:
            desired = Desired.model_validate_json(content or b"")
        except ValidationError:
            return "unreadable"
        canary = self._lanes.get("canary")
        if canary is None or canary.labels[1] != desired.version:
            return "other"
        try:
            self._lanes.split.apply(Weight(desired.weight, desired.generation))
        except StaleWeightError:
            return "stale"
        return "applied"

    async def _watch(self, path: Path) -> None:
        while True:
            self.apply(await asyncio.to_thread(_read, path))  # a folder on a network may hang
            await asyncio.sleep(POLL_S)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError:
        return None
