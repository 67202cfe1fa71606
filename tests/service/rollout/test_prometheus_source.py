"""A real Prometheus that scrapes a real service, read by the decider."""

import itertools
import time
from pathlib import Path

import httpx
import pytest

from service.contract.bundle import Bundle
from service.rollout.source import InstanceSource, PrometheusSource, SourceError
from tests.deploy.prometheus import prometheus_of
from tests.service.asking import request
from tests.service.test_server import running

DOCUMENTS = [{"text": "the cat " * n + "kettle"} for n in range(1, 13)]
REQUESTS, PATIENCE_S = 60, 60


@pytest.mark.real_part
def test_prometheus_tells_what_the_instance_does(
    bundle_path: Path, candidate_path: Path, tmp_path: Path
) -> None:
    versions = [Bundle.open(path).short_version for path in (bundle_path, candidate_path)]
    flags = ["--canary", str(candidate_path), "--canary-weight", "0.5", "--shadow-sample", "1"]
    with running(bundle_path, *flags) as service:
        targets = [{"targets": [service.url.removeprefix("http://")]}]
        with prometheus_of(
            tmp_path, {"job_name": "disranker", "static_configs": targets}
        ) as server:
            began = time.time()
            prometheus = PrometheusSource(server.url, selector='job="disranker"')
            instance = InstanceSource(f"{service.url}/metrics")
            end = time.monotonic() + PATIENCE_S
            while not (there := prometheus.read(10)).canary:
                assert time.monotonic() < end
                time.sleep(0.2)
            for number in itertools.count():
                body = request(query=f"cat {number}", candidates=DOCUMENTS, routing_key=f"{number}")
                httpx.post(f"{service.url}/rank", json=body, timeout=30).raise_for_status()
                if number < REQUESTS:
                    continue
                # A counter that begins between two scrapes grows from the next one on.
                seen = prometheus.read(time.time() - began).seen
                sides = seen.canary, seen.control
                enough = sum(side.arm.requests for side in sides) >= 0.9 * REQUESTS
                if enough and all(side.paired.compared for side in sides):
                    break
                assert time.monotonic() < end
                time.sleep(0.5)
            known = instance.read(0)
            with pytest.raises(SourceError, match="400"):
                PrometheusSource(server.url, selector="job=").read(10)
    assert [there.stable, there.canary] == [(version,) for version in versions]
    assert (known.cumulative, there.cumulative) == (True, False)
    for side, other in ((seen.canary, known.seen.canary), (seen.control, known.seen.control)):
        assert side.arm.requests == pytest.approx(other.arm.requests, rel=0.25, abs=3)
        assert side.arm.durations.bounds == other.arm.durations.bounds
        assert side.paired.compared > 0
        assert side.paired.scores.bounds == other.paired.scores.bounds


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/metrics", "file:///etc/passwd", "http://[::"):
        with pytest.raises(SourceError):
            InstanceSource(url).read(1)
        with pytest.raises(SourceError):
            PrometheusSource(url).read(1)
