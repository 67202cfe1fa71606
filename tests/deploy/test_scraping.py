"""A real Prometheus that scrapes a real service, and what it then knows."""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from loadtest.server import our_service
from tests.deploy.parts import DEPLOY, ROOT
from tests.deploy.prometheus import Prometheus, prometheus_of

pytestmark = pytest.mark.real_part

QUESTIONS = 5
TARGET = {"namespace": "disranker", "pod": "replica"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    # No budget that a busy machine could miss.
    flags = ("--threads", "1", "--budget-ms", "60000")
    with our_service(ROOT / "models/default", *flags) as service:
        target = {"targets": [service.url.removeprefix("http://")], "labels": TARGET}
        job = {"job_name": "disranker", "static_configs": [target]}
        with prometheus_of(tmp_path_factory.mktemp("prometheus"), job) as found:
            found.wait_for('disranker_request_duration_seconds_count{outcome="ok"} == 0')
            body = (ROOT / "docs/examples/rank-3.json").read_bytes()
            for _ in range(QUESTIONS):
                httpx.post(f"{service.url}/rank", content=body, timeout=30).raise_for_status()
            found.wait_for('disranker:requests:rate5m{outcome="ok"} > 0')
            yield found


def scaling_queries() -> list[str]:
    text = (DEPLOY / "k8s/components/autoscaling/scaledobject.yaml").read_text(encoding="utf-8")
    triggers: list[dict[str, Any]] = yaml.safe_load(text)["spec"]["triggers"]
    return [trigger["metadata"]["query"] for trigger in triggers]


def test_requests_within_the_budget_are_no_misses(prometheus: Prometheus) -> None:
    assert prometheus.values("disranker:missed:ratio_rate5m") == [0.0]


def test_autoscaler_gets_one_number_a_query(prometheus: Prometheus) -> None:
    for query in scaling_queries():
        (value,) = prometheus.values(query)
        assert math.isfinite(value)
        assert value >= 0


def test_nothing_is_wrong_with_a_service_that_works(prometheus: Prometheus) -> None:
    assert prometheus.values("ALERTS") == []
