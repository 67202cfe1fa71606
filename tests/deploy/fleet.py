"""Two real instances behind a real Envoy, with the configurations that are shipped."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic.alias_generators import to_snake

from loadtest.server import running
from tests.deploy.parts import DEPLOY, ROOT, find

ROLLOUTS = DEPLOY / "rollouts"
EXAMPLE = json.loads((ROOT / "docs/examples/rank-48.json").read_text(encoding="utf-8"))
BODY = EXAMPLE | {"candidates": EXAMPLE["candidates"][:16]}


class Split:
    """A running Envoy."""

    def __init__(self, admin: str) -> None:
        self._admin = httpx.Client(base_url=admin, timeout=10)
        listeners = self._admin.get("/listeners", params={"format": "json"}).json()
        (listener,) = listeners["listener_statuses"]
        port = listener["local_address"]["socket_address"]["port_value"]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def set(self, **keys: int) -> None:
        """Change the canary's weight or the mirrored part, as the file says."""
        values = {"disranker.mirror": keys["mirror"]} if "mirror" in keys else {}
        if "canary" in keys:
            values["disranker.weight.canary"] = keys["canary"]
            values["disranker.weight.stable"] = 100 - keys["canary"]
        self._admin.post("/runtime_modify", params=values).raise_for_status()

    def models(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the model that ranked for each routing key."""
        return {key: self._ask({"X-Routing-Key": key}) for key in keys}

    def shares(self, number: int) -> Counter[str]:
        """Return how often each model ranked for clients without a routing key."""
        return Counter(self._ask({}) for _ in range(number))

    def _ask(self, headers: dict[str, str]) -> str:
        answer = self.client.post("/rank", json=BODY, headers=headers)
        assert answer.status_code == 200, answer.text
        model: str = answer.json()["model"]["name"]
        return model


@contextlib.contextmanager
def split_of(folder: Path, *, stable: str, canary: str) -> Iterator[Split]:
    """Run the shipped Envoy in front of two services, given by their URLs."""
    config = yaml.safe_load((ROLLOUTS / "envoy/envoy.yaml").read_text(encoding="utf-8"))
    resources = config["static_resources"]
    resources["listeners"][0]["address"]["socket_address"] = _address("http://127.0.0.1:0")
    for cluster in resources["clusters"]:
        for check in cluster.get("health_checks", ()):
            check["interval"] = check["no_traffic_interval"] = "0.2s"
        if "load_assignment" in cluster:
            url = canary if cluster["name"] == "canary_alone" else stable
            (place,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            place["endpoint"]["address"]["socket_address"] = _address(url)
    file = folder / "envoy.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    # Laid over the file.
    admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: {port}}}}"
    command = [find("envoy"), "--config-path", str(file), "--config-yaml", admin]
    command += ["--disable-hot-restart", "--concurrency", "1"]
    with running(command, ready="/ready") as server:
        yield Split(server.url)


def scrape_job(**targets: str) -> dict[str, Any]:
    """Return what the shipped PodMonitor makes of pods, given by their track and URL."""
    text = (ROLLOUTS / "tracks/podmonitor.yaml").read_text(encoding="utf-8")
    endpoint = yaml.safe_load(text)["spec"]["podMetricsEndpoints"][0]
    pods = [
        {
            "targets": [url.removeprefix("http://")],
            "labels": {
                "namespace": "disranker",
                "pod": f"disranker-{track}",
                "__meta_kubernetes_pod_label_disranker_track": track,
            },
        }
        for track, url in targets.items()
    ]
    return {
        "job_name": "podMonitor",
        "metrics_path": endpoint["path"],
        "static_configs": pods,
        "relabel_configs": _snake(endpoint["relabelings"]),
        "metric_relabel_configs": _snake(endpoint["metricRelabelings"]),
    }


def _snake(relabelings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{to_snake(name): value for name, value in one.items()} for one in relabelings]


def _address(url: str) -> dict[str, Any]:
    host, port = url.removeprefix("http://").split(":")
    return {"address": host, "port_value": int(port)}
