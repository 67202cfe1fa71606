"""Where a controller reads what happened: one instance's metrics, or a Prometheus."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from service.rollout.observation import Observation
from service.rollout.tally import (
    COUNTERS,
    GENERATION,
    LABELS,
    WEIGHT,
    Sample,
    generation,
    tally,
    versions,
)

TIMEOUT_S = 10.0
MAX_BYTES = 50_000_000


class SourceError(Exception):
    """The metrics cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the metrics say.

    Attributes:
        stable: Versions that the stable lane has somewhere.
        canary: Versions that the canary lane has somewhere.
        generation: Latest generation that a replica has.
        seen: What the lanes did, of one version each; nothing where a lane has none or several.
        cumulative: Whether that is since the process began, not since the time asked for.
    """

    stable: tuple[str, ...]
    canary: tuple[str, ...]
    generation: int
    seen: Observation
    cumulative: bool


class Source(Protocol):
    """Reads metrics."""

    def read(self, window_s: float) -> Reading:
        """Return what the metrics say of the last seconds, or of all where `cumulative`.

        Raises:
            SourceError: They cannot be read.
        """
        ...


class InstanceSource:
    """The metrics of one instance, which count since it began."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self._url = url
        self._key = key

    def read(self, window_s: float) -> Reading:  # noqa: ARG002 - it has no memory
        """Return what they say since the instance began; see `Source`."""
        text = _get(self._url, self._key).decode("utf-8", errors="replace")
        wanted = {*COUNTERS, WEIGHT, GENERATION}
        try:
            families = [*text_string_to_metric_families(text)]
        except ValueError as error:
            raise SourceError(f"{self._url}: no metrics: {error}") from error
        samples = [
            Sample(sample.name, sample.labels, sample.value)
            for family in families
            for sample in family.samples
            if sample.name in wanted
        ]
        return _reading(samples, cumulative=True)


class PrometheusSource:
    """A Prometheus that scrapes all replicas; restarts of one are its business."""

    def __init__(self, url: str, *, selector: str = "", key: str | None = None) -> None:
        """Ask a server.

        Args:
            url: Its base.
            selector: Matchers of the deployment's series, `namespace="search"` for one.
            key: Bearer token.
        """
        self._url = url.rstrip("/")
        self._selector = f"{{{selector}}}" if selector else ""
        self._key = key

    def read(self, window_s: float) -> Reading:
        """Return what the replicas did in the last seconds; see `Source`."""
        by, window = ", ".join(LABELS), math.ceil(max(window_s, 1.0))
        samples = [
            sample
            for name in COUNTERS
            for sample in self._ask(
                name, f"sum by ({by}) (increase({name}{self._selector}[{window}s]))"
            )
        ]
        for name in (WEIGHT, GENERATION):
            samples += self._ask(name, f"{name}{self._selector}")
        return _reading(samples, cumulative=False)

    def _ask(self, name: str, query: str) -> Iterator[Sample]:
        url = f"{self._url}/api/v1/query?{urlencode({'query': query})}"
        try:
            answer: Any = json.loads(_get(url, self._key))
            for found in answer["data"]["result"]:
                yield Sample(name, found["metric"], float(found["value"][1]))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise SourceError(f"{self._url}: no answer to {query}") from error


def _reading(samples: Iterable[Sample], *, cumulative: bool) -> Reading:
    samples = [sample for sample in samples if math.isfinite(sample.value)]
    stable, canary = versions(samples, "stable"), versions(samples, "canary")
    seen = Observation()
    if len(stable) == len(canary) == 1:
        seen = tally(samples, stable=stable[0], canary=canary[0])
    return Reading(stable, canary, generation(samples), seen, cumulative)


def _get(url: str, key: str | None) -> bytes:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if not url.startswith(("http://", "https://")):
        raise SourceError(f"{url}: neither http:// nor https://")
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT_S) as answer:  # noqa: S310
            body: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, URLError, ValueError) as error:
        raise SourceError(f"{url}: {error}") from error
    if len(body) > MAX_BYTES:
        raise SourceError(f"{url}: more than {MAX_BYTES} bytes")
    return body
