"""What the service and Triton expose, and what a query asks for."""

import asyncio
import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha256

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.contract.bundle import Bundle
from service.engines.local import LocalEngine
from service.scorers.scorer import load_scorer
from service.settings import Settings
from tests.deploy.parts import ROOT

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
    """Return the values of each label of each sample of the service, with a key for `/metrics`."""
    digest = sha256(b"key").hexdigest()
    bundle = Bundle.open(ROOT / "models/default")
    precision = bundle.manifest.preferred_precision
    engine = LocalEngine(load_scorer(bundle, precision, engine="onnx", threads=1))
    keys = [{"name": "search", "sha256": digest, "scopes": ["rank", "metrics"]}]
    app = create_app(
        Settings.model_validate({"keys": keys}), bundle=bundle, engine=engine, precision=precision
    )

    async def scrape() -> str:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return (await client.get("/metrics", headers={"Authorization": "Bearer key"})).text

    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(asyncio.run(scrape())):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    engine.close()
    return found


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
