"""A real Prometheus with what is shipped for it, on a clock that a test can wait for."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from loadtest.server import running
from tests.deploy.parts import DEPLOY, find

PATIENCE_S = 60


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=10)

    def values(self, query: str) -> list[float]:
        """Return the numbers that a query gives now."""
        answer = self._client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return [float(sample["value"][1]) for sample in answer["data"]["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire, with their guard where they have one."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        names = (alert["labels"] for alert in alerts if alert["state"] == "firing")
        return {" ".join(filter(None, (one["alertname"], one.get("guard")))) for one in names}

    def wait_for(self, query: str) -> None:
        """Return once a query gives anything."""
        end = time.monotonic() + PATIENCE_S
        while not self.values(query):
            assert time.monotonic() < end, f"no {query}"
            time.sleep(0.1)


@contextlib.contextmanager
def prometheus_of(
    folder: Path, job: dict[str, Any], *, rules: Path | None = None
) -> Iterator[Prometheus]:
    """Run what is shipped with another job, scraped and reckoned each second."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(rules or DEPLOY / "prometheus/rules.yml")]
    config["scrape_configs"] = [job]
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [
        find("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, ready="/-/ready") as server:
        yield Prometheus(server.url)


def fast_rules(folder: Path) -> Path:
    """Write the rules with seconds for the canary's minutes, and fewer requests."""
    text = (DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8")
    text = re.sub(r"for: \d+m", "for: 1s", text.replace("[10m]", "[8s]"))
    file = folder / "rules.yml"
    file.write_text(text.replace(">= 500", ">= 40"), encoding="utf-8")
    return file


def recorded(rules: Path) -> list[str]:
    """Return the series that a rules file records."""
    groups = yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
    return [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
