"""The manifests, as kustomize renders them, against Kubernetes' schemas and the service itself."""

import copy
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.api.operations import LIVE, READY
from service.ranking.model import STOP_S
from service.server import SETTLE_S
from service.settings import PREFIX, Settings
from tests.deploy.custom import CUSTOM
from tests.deploy.parts import DEPLOY, run

Manifest = dict[str, Any]

pytestmark = pytest.mark.real_part  # kubectl, which has kustomize in it

OVERLAYS = ("cpu", "triton-gpu")
OLDEST, NEWEST = "1.30", "1.37"
MARGIN_S = 5.0


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    rendered = run("kubectl", "kustomize", DEPLOY / "k8s" / "overlays" / request.param)
    return list(yaml.safe_load_all(rendered))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = of_kind(manifests, kind)
    return found


def pod(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    yield from pod(manifests).get("initContainers", [])
    yield from pod(manifests)["containers"]


def service_container(manifests: list[Manifest]) -> Manifest:
    (found,) = (one for one in containers(manifests) if one["name"] == "service")
    return found


def settings(manifests: list[Manifest]) -> dict[str, str]:
    """Return the variables that the service's container gets, those of its limits as they come."""
    container = service_container(manifests)
    (source,) = container["envFrom"]
    name = source["configMapRef"]["name"]
    (config,) = (one for one in of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == name)
    limits = container["resources"]["limits"]
    fields = {
        entry["name"]: limits[entry["valueFrom"]["resourceFieldRef"]["resource"].split(".")[1]]
        for entry in container["env"]
    }
    data: dict[str, str] = config["data"]
    return data | fields


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_field_that_kubernetes_does_not_know_is_seen(manifests: list[Manifest]) -> None:
    deployment = copy.deepcopy(only(manifests, "Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_other_peoples_resources_have_only_fields_they_know(manifests: list[Manifest]) -> None:
    custom = [manifest for manifest in manifests if manifest["kind"] in CUSTOM]
    assert {manifest["kind"] for manifest in custom} == set(CUSTOM)
    for manifest in custom:
        CUSTOM[manifest["kind"]].model_validate(manifest)


def test_everything_is_in_the_namespace(manifests: list[Manifest]) -> None:
    namespace = only(manifests, "Namespace")["metadata"]["name"]
    others = [manifest for manifest in manifests if manifest["kind"] != "Namespace"]
    assert {manifest["metadata"]["namespace"] for manifest in others} == {namespace}


def test_service_starts_with_the_settings(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = settings(manifests)
    assert {name.removeprefix(PREFIX).lower() for name in found} <= set(Settings.model_fields)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(f"{PREFIX}CONFIG")  # a Secret, which is not here
    assert Settings().threads == int(service_container(manifests)["resources"]["limits"]["cpu"])


def test_keys_are_read_from_a_secret_that_no_manifest_holds(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "Secret")
    (keys,) = (volume for volume in pod(manifests)["volumes"] if volume["name"] == "keys")
    (mount,) = (m for m in service_container(manifests)["volumeMounts"] if m["name"] == "keys")
    assert keys["secret"] == {"secretName": "disranker-keys", "defaultMode": 0o440}
    assert settings(manifests)[f"{PREFIX}CONFIG"] == f"{mount['mountPath']}/keys.toml"


def test_service_variables_are_not_taken_for_settings(manifests: list[Manifest]) -> None:
    assert pod(manifests)["enableServiceLinks"] is False


def test_stop_has_time_for_every_accepted_request(manifests: list[Manifest]) -> None:
    waits_s = service_container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = float(settings(manifests)[f"{PREFIX}STOP_TIMEOUT_S"])
    needed_s = waits_s + SETTLE_S + drain_s + STOP_S
    assert pod(manifests)["terminationGracePeriodSeconds"] >= needed_s + MARGIN_S
    assert drain_s * 1000 >= Settings().default_deadline_ms


def test_probes_ask_what_the_service_answers(manifests: list[Manifest]) -> None:
    container = service_container(manifests)
    ports = {port["name"] for port in container["ports"]}
    paths = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert paths["startup"]["path"] in LIVE
    assert paths["liveness"]["path"] in LIVE
    assert paths["readiness"]["path"] in READY
    assert {path["port"] for path in paths.values()} <= ports


def check_restricted(container: Manifest) -> None:
    """Hold a container to what the restricted pod security standard and its scheduler want."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= set(resources["limits"])


def test_every_container_is_restricted_and_bounded(manifests: list[Manifest]) -> None:
    shared = pod(manifests)["securityContext"]
    assert shared["runAsNonRoot"] is True
    assert shared["runAsUser"] > 0
    assert shared["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(manifests)["automountServiceAccountToken"] is False
    for container in containers(manifests):
        check_restricted(container)


def test_memory_limit_holds_what_the_settings_allow(manifests: list[Manifest]) -> None:
    """The bounds of docs/memory.md, in MB, with ONNX Runtime, the larger engine."""
    found = Settings()
    bound = 190.0 + found.token_cache_mb + found.score_cache_mb + 5 * found.max_bodies_mb
    bound += 0.0002 * found.max_backlog_tokens + 2 * found.max_requests * 0.064
    limit = service_container(manifests)["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(limit.removesuffix("Gi")) * 2**30 / 1e6 >= bound


def test_selectors_and_ports_meet(manifests: list[Manifest]) -> None:
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"] for one in containers(manifests) for port in one.get("ports", [])}
    service, monitor = only(manifests, "Service"), only(manifests, "ServiceMonitor")["spec"]
    budget = only(manifests, "PodDisruptionBudget")["spec"]
    assert service["spec"]["selector"].items() <= labels
    assert budget["selector"]["matchLabels"].items() <= labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    scraped = {endpoint["port"] for endpoint in monitor["endpoints"]}
    assert scraped <= {port["name"] for port in service["spec"]["ports"]}
    allowed = set()
    for policy in of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
            assert rule["from"]
            allowed |= {port["port"] for port in rule["ports"]}
    assert allowed == ports


def test_nothing_may_talk_unless_a_policy_says_so(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    (deny,) = (one for one in policies if one["metadata"]["name"] == "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all("egress" not in policy["spec"] for policy in policies)


def test_autoscaler_owns_the_number_of_replicas(manifests: list[Manifest]) -> None:
    deployment = only(manifests, "Deployment")
    scaled = only(manifests, "ScaledObject")["spec"]
    assert "replicas" not in deployment["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert 2 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"]


def test_operator_gets_the_rules_that_were_tested(manifests: list[Manifest]) -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    assert only(manifests, "PrometheusRule")["spec"] == rules, "run `make rules`"


def test_every_image_is_pinned(manifests: list[Manifest]) -> None:
    for container in containers(manifests):
        assert container["image"].rpartition(":")[2] not in ("", "latest"), container["name"]


def test_triton_is_given_the_precision_that_the_service_asks_for(manifests: list[Manifest]) -> None:
    found = [one for one in containers(manifests) if one["name"] == "repository"]
    assert bool(found) == (settings(manifests).get(f"{PREFIX}ENGINE") == "triton")
    for container in found:
        arguments = container["args"]
        wanted = settings(manifests)[f"{PREFIX}PRECISION"]
        assert arguments[arguments.index("--precision") + 1] == wanted
