"""What a service counts of itself, read from `/metrics`."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of the service, since it started.

    Attributes:
        run_tokens: Tokens the model was run on for answered requests.
        wasted_tokens: Tokens it was run on for others; None where the service does not tell.
        ranked: Requests that the service answered with a ranking.
        cpu_s: CPU time it used.
    """

    run_tokens: float
    wasted_tokens: float | None
    ranked: float
    cpu_s: float

    def wasted_share_since(self, before: Counts) -> float | None:
        """Return the share of tokens run in vain since then; 0 where none were run."""
        if self.wasted_tokens is None or before.wasted_tokens is None:
            return None
        wasted = self.wasted_tokens - before.wasted_tokens
        return wasted / max(1.0, wasted + self.run_tokens - before.run_tokens)


def read_counts(url: str) -> Counts:
    """Return the counters of the service at a URL.

    Raises:
        OSError: It does not answer.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=TIMEOUT_S) as answer:  # noqa: S310
        return counts_of(answer.read().decode())


def counts_of(text: str) -> Counts:
    """Return the counters in Prometheus' text format."""
    run = ranked = cpu_s = 0.0
    wasted = None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "disranker_tokens_total" and sample.labels["kind"] == "padded":
                run += sample.value
            if sample.name == "disranker_wasted_tokens_total":
                wasted = (wasted or 0.0) + sample.value
            if sample.name == "disranker_request_duration_seconds_count":
                ranked += sample.value if sample.labels["outcome"] in ("ok", "degraded") else 0.0
            if sample.name == "process_cpu_seconds_total":
                cpu_s = sample.value
    return Counts(run, wasted, ranked, cpu_s)
