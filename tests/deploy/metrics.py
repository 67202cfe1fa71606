"""What the service and Triton expose, and what a query asks for."""

import json
import re
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from hashlib import sha256

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from loadtest.server import our_service
from tests.deploy.parts import ROOT

BUNDLE = ROOT / "models/default"
SCOPES = ["rank", "metrics", "variant"]
PATIENCE_S = 60

TRITON = {
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_inference_exec_count": {"model", "version"},
    "nv_inference_compute_infer_duration_us": {"model", "version"},
    "nv_inference_count": {"model", "version"},
    "nv_inference_queue_duration_us": {"model", "version"},
    "nv_inference_request_failure": {"model", "version", "reason"},
    "nv_inference_request_success": {"model", "version"},
}
"""Metrics of Triton 2.51 by name, as a running one gave them; that of the GPU by its manual."""

TARGET = {"namespace", "job", "instance", "pod"}
"""Labels that Prometheus adds to what it scrapes."""

NAME = re.compile(r"\b(?:disranker|nv|process)_\w+")
SELECTOR = re.compile(r"\b((?:disranker|nv|process)_\w+)\{([^}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!=|!~|=)\s*\"([^\"]*)\"")
RECORDED = re.compile(r"\bdisranker:[\w:]+")


@cache
def exposed() -> dict[str, dict[str, set[str]]]:
    """Return the values of each label of each sample of a service that has all it may have.

    It has a key, a canary and a shadow, and has compared a ranking of each lane and one without any
    order.
    """
    key = {"name": "search", "sha256": sha256(b"key").hexdigest(), "scopes": SCOPES}
    flags = ["--canary", BUNDLE, "--shadow", BUNDLE, "--shadow-sample", "1", "--threads", "1"]
    with (
        our_service(BUNDLE, *map(str, flags), "--keys", json.dumps([key])) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": "Bearer key"}) as client,
    ):
        for lane in ("stable", "canary"):
            compared = partial(_counted, client, "disranker_agreement_count", variant=lane)
            _ask_until(compared, client, lane, "ab")
        tied = partial(_counted, client, "disranker_comparison_guards_total", guard="constant")
        _ask_until(tied, client, "stable", "aa")
        samples = _scrape(client)
    found: dict[str, dict[str, set[str]]] = {}
    for sample in samples:
        labels = found.setdefault(sample.name, {})
        for name, value in sample.labels.items():
            labels.setdefault(name, set()).add(value)
    return found


def _ask_until(done: Callable[[], bool], client: httpx.Client, lane: str, texts: str) -> None:
    """Have a lane, which may still be starting, rank documents of one letter each."""
    request = {"query": "q", "candidates": [{"text": text} for text in texts]}
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        answer = client.post("/rank", json=request, headers={"X-Variant": lane})
        assert answer.status_code in (200, 503), answer.text
        time.sleep(0.1)


def _counted(client: httpx.Client, name: str, **labels: str) -> bool:
    return any(
        sample.name == name and labels.items() <= sample.labels.items() and sample.value > 0
        for sample in _scrape(client)
    )


def _scrape(client: httpx.Client) -> list[Sample]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [sample for family in families for sample in family.samples]


def unknown_parts(query: str) -> list[str]:
    """Return the metrics, labels and values of a query that nobody exposes."""
    metrics = exposed()
    unknown = [name for name in NAME.findall(query) if name not in {*metrics, *TRITON}]
    for metric, matchers in SELECTOR.findall(query):
        labels = metrics.get(metric) or {name: set() for name in TRITON.get(metric, ())}
        for label, operator, value in MATCHER.findall(matchers):
            if label not in {*labels, *TARGET}:
                unknown.append(f"{metric}{{{label}}}")
            elif operator.startswith("=") and labels.get(label):
                wanted = set(value.split("|"))
                unknown += [f'{metric}{{{label}="{one}"}}' for one in wanted - labels[label]]
    return unknown


def recorded_parts(queries: Iterable[str]) -> set[str]:
    """Return the recorded series that queries ask for."""
    return {name for query in queries for name in RECORDED.findall(query)}
