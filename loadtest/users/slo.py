"""Thresholds for a load test, and what was measured against them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.bench.goals import Verdict
from loadtest.statistics import percentile


class SloError(Exception):
    """A file of thresholds that cannot be read; the message names the field."""


class Slo(BaseModel):
    """The thresholds of `slo.toml`.

    Attributes:
        p50_ms: Most the median latency of an answered request may be.
        p99_ms: Most the 99th percentile may be.
        error_share: Most of all requests that may not be answered as asked.
        requests_per_s: Fewest that must be answered as asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    error_share: float = Field(ge=0, le=1)
    requests_per_s: float = Field(ge=0)

    @classmethod
    def read(cls, path: Path) -> Slo:
        """Return the thresholds of a TOML file.

        Raises:
            SloError: It is no TOML, or a threshold is missing, unknown or out of range.
        """
        try:
            return cls(**tomllib.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise SloError(f"{path}: {name}: {first['msg']}") from None
        except tomllib.TOMLDecodeError as error:
            raise SloError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that ended.

    Attributes:
        at_s: When, since the first one ended.
        latency_s: How long it took.
        ok: Whether it was answered as asked.
    """

    at_s: float
    latency_s: float
    ok: bool


def verdicts(slo: Slo, requests: Sequence[Ended], *, run_s: float) -> Iterator[Verdict]:
    """Yield a verdict for each threshold; latency has none where nothing was answered.

    Args:
        slo: The thresholds.
        requests: All requests of the run, in the order of their ends.
        run_s: How long it was to last; what came later made it longer.
    """
    latencies_ms = [1000 * request.latency_s for request in requests if request.ok]
    seconds = max(run_s, requests[-1].at_s + requests[0].latency_s if requests else 0.0)
    errors = 1 - len(latencies_ms) / len(requests) if requests else 1.0
    for percent, limit in ((50, slo.p50_ms), (99, slo.p99_ms)) if latencies_ms else ():
        found = percentile(latencies_ms, percent)
        yield Verdict(f"p{percent} latency", "users", found, limit, at_most=True, unit=" ms")
    yield Verdict(
        "requests not answered as asked",
        "users",
        100 * errors,
        100 * slo.error_share,
        at_most=True,
        unit=" %",
    )
    rate = len(latencies_ms) / seconds
    yield Verdict("requests answered", "users", rate, slo.requests_per_s, unit="/s")
