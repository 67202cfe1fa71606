"""A real Prometheus that scrapes a real service, and what it then knows."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtest.server import our_service, running
from tests.deploy.parts import DEPLOY, ROOT, find
from tests.deploy.test_grafana import queries

pytestmark = pytest.mark.real_part

PATIENCE_S = 60
QUESTIONS = 5
TARGET = {"namespace": "disranker", "pod": "replica"}


class Prometheus:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10)

    def values(self, query: str) -> list[float]:
        answer = self._client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return [float(sample["value"][1]) for sample in answer["data"]["result"]]

    def wait_for(self, query: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.values(query):
            assert time.monotonic() < end, f"no {query}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program, folder = find("prometheus"), tmp_path_factory.mktemp("prometheus")
    # No budget that a busy machine could miss.
    flags = ("--threads", "1", "--budget-ms", "60000")
    with our_service(ROOT / "models/default", *flags) as service:
        write_config(folder, service.url)
        command = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:{port}",
        ]
        with running(command, ready="/-/ready") as server:
            found = Prometheus(server.url)
            found.wait_for('disranker_request_duration_seconds_count{outcome="ok"} == 0')
            body = (ROOT / "docs/examples/rank-3.json").read_bytes()
            for _ in range(QUESTIONS):
                httpx.post(f"{service.url}/rank", content=body, timeout=30).raise_for_status()
            found.wait_for('disranker:requests:rate5m{outcome="ok"} > 0')
            yield found


def write_config(folder: Path, url: str) -> None:
    """Write what is shipped, for one target, scraped and reckoned each second."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus/rules.yml")]
    config["scrape_configs"] = [
        job | {"static_configs": [{"targets": [url.removeprefix("http://")], "labels": TARGET}]}
        for job in config["scrape_configs"]
        if job["job_name"] == "disranker"
    ]
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")


def scaling_queries() -> list[str]:
    text = (DEPLOY / "k8s/components/autoscaling/scaledobject.yaml").read_text(encoding="utf-8")
    triggers: list[dict[str, Any]] = yaml.safe_load(text)["spec"]["triggers"]
    return [trigger["metadata"]["query"] for trigger in triggers]


def test_every_recorded_series_is_there(prometheus: Prometheus) -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    recorded = [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
    assert [name for name in recorded if not prometheus.values(name)] == []
    assert prometheus.values("disranker:missed:ratio_rate5m") == [0.0]


def test_autoscaler_gets_one_number_a_query(prometheus: Prometheus) -> None:
    for query in scaling_queries():
        (value,) = prometheus.values(query)
        assert math.isfinite(value)
        assert value >= 0


def test_every_panel_of_the_service_has_something_to_show(prometheus: Prometheus) -> None:
    ours = [query for query in queries() if "nv_" not in query and "disranker_key_" not in query]
    assert [query for query in ours if not prometheus.values(query)] == []


def test_nothing_is_wrong_with_a_service_that_works(prometheus: Prometheus) -> None:
    assert prometheus.values("ALERTS") == []
