"""The manifests of a canary, rendered on each overlay, and what they ask Prometheus."""

import json
import re
from os.path import relpath
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.custom import CUSTOM
from tests.deploy.custom_rollouts import RESOURCES
from tests.deploy.metrics import recorded_parts, unknown_parts
from tests.deploy.parts import DEPLOY, run
from tests.deploy.prometheus import recorded

Manifest = dict[str, Any]

ROLLOUTS = DEPLOY / "rollouts"
TOOLS = ("argo", "flagger", "istio")
OVERLAYS = ("cpu", "triton-gpu")
RULES = DEPLOY / "prometheus/rules.yml"

real_part = pytest.mark.real_part  # kubectl and promtool


@pytest.fixture(scope="module", params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(
    request: pytest.FixtureRequest, tool: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Manifest]:
    return rendered(tmp_path_factory.mktemp(tool), request.param, "tracks", tool)


def rendered(folder: Path, overlay: str, *parts: str) -> list[Manifest]:
    """Return an overlay with components on it, as the documentation says."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relpath(DEPLOY / "k8s/overlays" / overlay, folder)],
        "components": [relpath(ROLLOUTS / part, folder) for part in parts],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
    return list(yaml.safe_load_all(run("kubectl", "kustomize", folder)))


def load(file: str) -> list[Manifest]:
    return list(yaml.safe_load_all((ROLLOUTS / file).read_text(encoding="utf-8")))


def analysis_queries() -> dict[str, str]:
    """Return what is asked of the canary by each guard's name."""
    (template,) = load("argo/analysis.yaml")
    metrics = template["spec"]["metrics"]
    return {one["name"]: one["provider"]["prometheus"]["query"] for one in metrics}


def analysis_limits() -> dict[str, float]:
    """Return by how much the canary may be worse, by each guard's name."""
    (template,) = load("argo/analysis.yaml")
    limits = {}
    for one in template["spec"]["metrics"]:
        limit = one["failureCondition"].removeprefix("result[0] > ")
        assert one["successCondition"] == f"result[0] >= 0 && result[0] <= {limit}"
        limits[one["name"]] = float(limit)
    return limits


@real_part
def test_resources_have_only_fields_that_are_known(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        known = (CUSTOM | RESOURCES).get(manifest["kind"])
        if known is None:
            kubernetes_validate.validate(manifest, "1.30", strict=True)
        else:
            known.model_validate(manifest)


@real_part
def test_everything_is_in_the_namespace(manifests: list[Manifest]) -> None:
    others = [manifest for manifest in manifests if manifest["kind"] != "Namespace"]
    assert {manifest["metadata"]["namespace"] for manifest in others} == {"disranker"}


@real_part
def test_policies_hold_for_pods_of_both_tracks(manifests: list[Manifest]) -> None:
    guarded = [one for one in manifests if one["kind"] in ("NetworkPolicy", "PodDisruptionBudget")]
    selectors = [one["spec"].get("podSelector", one["spec"].get("selector")) for one in guarded]
    (monitor,) = (one for one in manifests if one["kind"] == "PodMonitor")
    named = [selector for selector in selectors if selector]
    assert len(named) == 3
    assert all(selector == monitor["spec"]["selector"] for selector in named)
    assert [one for one in manifests if one["kind"] == "ServiceMonitor"] == []


@real_part
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rollout_and_not_its_deployment_is_scaled(tmp_path: Path, overlay: str) -> None:
    manifests = {one["kind"]: one for one in rendered(tmp_path, overlay, "tracks", "argo")}
    target = manifests["ScaledObject"]["spec"]["scaleTargetRef"]
    rollout, deployment = manifests["Rollout"], manifests["Deployment"]
    assert (target["kind"], target["name"]) == ("Rollout", rollout["metadata"]["name"])
    assert "replicas" not in rollout["spec"]
    assert rollout["spec"]["workloadRef"]["name"] == deployment["metadata"]["name"]
    assert rollout["spec"]["selector"] == deployment["spec"]["selector"]


@real_part
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_flagger_scales_the_primary_by_the_same_queries(tmp_path: Path, overlay: str) -> None:
    manifests = {one["kind"]: one for one in rendered(tmp_path, overlay, "tracks", "flagger")}
    triggers = manifests["ScaledObject"]["spec"]["triggers"]
    wanted = {trigger["name"]: trigger["metadata"]["query"] for trigger in triggers}
    found = manifests["Canary"]["spec"]["autoscalerRef"]["primaryScalerQueries"]
    assert found == wanted


@real_part
def test_canary_by_hand_is_the_same_deployment_under_another_name() -> None:
    manifests = list(yaml.safe_load_all(run("kubectl", "kustomize", ROLLOUTS / "canary")))
    assert {one["kind"] for one in manifests} == {"ConfigMap", "Service", "Deployment"}
    assert all(one["metadata"]["name"].startswith("disranker-canary") for one in manifests)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.30", strict=True)
    (deployment,) = (one for one in manifests if one["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["disranker/track"] == "canary"
    assert labels["app.kubernetes.io/name"] == "disranker-canary"


def test_services_that_are_routed_to_exist() -> None:
    (by_hand,) = load("istio/virtualservice.yaml")
    *services, routed = load("argo/traffic.yaml")
    names = {one["metadata"]["name"] for one in services}
    assert hosts(routed) == names
    assert hosts(by_hand) == {"disranker", "disranker-canary"}
    (rollout,) = load("argo/rollout.yaml")
    canary = rollout["spec"]["strategy"]["canary"]
    assert {canary["stableService"], canary["canaryService"]} == names
    virtual = canary["trafficRouting"]["istio"]["virtualService"]
    assert virtual["name"] == routed["metadata"]["name"]
    assert set(virtual["routes"]) == {route["name"] for route in routed["spec"]["http"]}


def hosts(virtual: Manifest) -> set[str]:
    routes = [route for http in virtual["spec"]["http"] for route in http["route"]]
    return {route["destination"]["host"] for route in routes}


def test_all_tools_ask_the_same_and_stop_at_the_same() -> None:
    (canary,) = load("flagger/canary.yaml")
    templates = {
        one["metadata"]["name"]: one["spec"]["query"] for one in load("flagger/metrics.yaml")
    }
    metrics = canary["spec"]["analysis"]["metrics"]
    assert {one["name"]: templates[one["templateRef"]["name"]] for one in metrics} == (
        analysis_queries()
    )
    ranges = {one["name"]: one["thresholdRange"] for one in metrics}
    assert {name: one["max"] for name, one in ranges.items()} == analysis_limits()
    assert {one["min"] for one in ranges.values()} == {0}
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerted = [
        found
        for group in groups
        for rule in group["rules"]
        for found in re.findall(
            r'canary_worse:by10m\{guard=~?"([\w|]+)"\} > ([\d.]+)', rule["expr"]
        )
    ]
    assert {
        guard: float(limit) for guards, limit in alerted for guard in guards.split("|")
    } == analysis_limits()


def test_queries_ask_for_what_is_recorded_and_pass_nothing_that_is_not_there() -> None:
    queries = analysis_queries().values()
    assert recorded_parts(queries) <= set(recorded(RULES))
    assert [part for query in queries for part in unknown_parts(query)] == []
    assert all(query.strip().endswith(" or vector(-1)") for query in queries)


def test_steps_are_judged_before_the_next_one() -> None:
    (rollout,) = load("argo/rollout.yaml")
    steps = rollout["spec"]["strategy"]["canary"]["steps"]
    (canary,) = load("flagger/canary.yaml")
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    assert weights == canary["spec"]["analysis"]["stepWeights"] == [1, 5, 25, 50]
    for step, following in zip(steps, [*steps[1:], {}], strict=True):
        assert "setWeight" not in step or "analysis" in following


def test_no_step_is_judged_by_requests_of_the_one_before() -> None:
    looks_back = set(re.findall(r"by(\w+)\{", " ".join(analysis_queries().values())))
    (template,) = load("argo/analysis.yaml")
    (canary,) = load("flagger/canary.yaml")
    assert {one["initialDelay"] for one in template["spec"]["metrics"]} == looks_back
    assert {canary["spec"]["analysis"]["interval"]} == looks_back


@real_part
def test_envoy_takes_the_configuration() -> None:
    file = ROLLOUTS / "envoy/envoy.yaml"
    run("envoy", "--mode", "validate", "--config-path", file)
