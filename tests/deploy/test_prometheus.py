"""Rules and scrape configuration against promtool, the service's metrics and the runbook."""

import re
from typing import Any

import pytest
import yaml

from tests.deploy.metrics import recorded_parts, unknown_parts
from tests.deploy.parts import DEPLOY, run

PROMETHEUS = DEPLOY / "prometheus"

real_part = pytest.mark.real_part


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@real_part
def test_promtool_takes_configuration_and_rules() -> None:
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "check", "rules", PROMETHEUS / "rules.yml")


@real_part
def test_alerts_fire_when_they_should_and_only_then() -> None:
    run("promtool", "test", "rules", PROMETHEUS / "rules_test.yml")


def test_every_alert_is_tested() -> None:
    tests = (PROMETHEUS / "rules_test.yml").read_text(encoding="utf-8")
    untested = [
        alert["alert"] for alert in alerts() if f"- alertname: {alert['alert']}" not in tests
    ]
    assert untested == []


def test_rules_ask_for_what_is_exposed() -> None:
    assert [part for rule in rules() for part in unknown_parts(rule["expr"])] == []


def test_metric_label_and_value_that_nobody_exposes_are_seen() -> None:
    query = 'rate(disranker_typo_total{a="b"}[5m]) + disranker_ready{pot="x"}'
    assert unknown_parts(query)[0] == "disranker_typo_total"
    assert "disranker_ready{pot}" in unknown_parts(query)
    value = 'disranker_stage_duration_seconds_sum{stage=~"queue|sleep"}'
    assert unknown_parts(value) == ['disranker_stage_duration_seconds_sum{stage="sleep"}']


def test_recorded_series_exist() -> None:
    written = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded_parts(rule["expr"] for rule in rules()) <= written


def test_every_alert_has_a_section_in_the_runbook() -> None:
    runbook = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
    sections = {
        f"deploy/RUNBOOK.md#{title.lower()}" for title in re.findall(r"^#+ (\w+)$", runbook, re.M)
    }
    for alert in alerts():
        assert alert["annotations"]["runbook"] in sections, alert["alert"]
        assert alert["annotations"]["runbook"].endswith(f"#{alert['alert'].lower()}")
        assert alert["labels"]["severity"] in ("page", "ticket")
