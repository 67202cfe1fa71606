"""The dashboard against its datasource, the rules and the service's metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.metrics import recorded_parts, unknown_parts
from tests.deploy.parts import DEPLOY, run

GRAFANA = DEPLOY / "grafana"


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels that show something, without the rows above them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_panels_ask_for_what_is_exposed_or_recorded() -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    written = {rule.get("record") for group in groups for rule in group["rules"]}
    assert [part for query in queries() for part in unknown_parts(query)] == []
    assert recorded_parts(queries()) <= written


@pytest.mark.real_part
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query{number}", "expr": query} for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    run("promtool", "check", "rules", file)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24  # the width of Grafana's grid


def test_panels_name_the_provisioned_datasource() -> None:
    provisioned = yaml.safe_load((GRAFANA / "datasource.yml").read_text(encoding="utf-8"))
    (datasource,) = provisioned["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {datasource["uid"]}
