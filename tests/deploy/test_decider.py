"""The decider of a cluster, rendered on an overlay, against Kubernetes' schemas and the code."""

import argparse
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from service.rollout.command import add_rollout
from service.rollout.desired import WEIGHTS
from service.settings import PREFIX, Settings
from tests.deploy.custom import CUSTOM
from tests.deploy.parts import ROOT
from tests.deploy.test_kubernetes import check_restricted
from tests.deploy.test_rollouts import Manifest, rendered

pytestmark = pytest.mark.real_part  # kubectl

NAME = "disranker-rollout"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return rendered(tmp_path_factory.mktemp("decider"), "cpu", "decider")


def named(manifests: list[Manifest], kind: str, name: str = NAME) -> Manifest:
    (found,) = (one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pod(manifests: list[Manifest], name: str = NAME) -> Manifest:
    spec: Manifest = named(manifests, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def options(manifests: list[Manifest]) -> dict[str, Any]:
    """Return what the decider's command line makes of its arguments."""
    (container,) = pod(manifests)["containers"]
    parser = argparse.ArgumentParser()
    add_rollout(parser.add_subparsers())
    return vars(parser.parse_args(container["args"]))


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(manifests: list[Manifest], version: str) -> None:
    kinds = {"ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim", "NetworkPolicy"}
    assert kinds <= {one["kind"] for one in manifests}
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "disranker"


def test_account_may_do_what_the_decider_does_and_no_more(manifests: list[Manifest]) -> None:
    binding = named(manifests, "RoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": NAME,
    }
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": NAME, "namespace": "disranker"}
    ]
    assert named(manifests, "Role")["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [NAME],
            "verbs": ["get", "patch"],
        }
    ]
    found = pod(manifests)
    assert (found["serviceAccountName"], found["automountServiceAccountToken"]) == (NAME, True)
    assert named(manifests, "ServiceAccount")["automountServiceAccountToken"] is False


def test_decider_writes_what_replicas_read(manifests: list[Manifest]) -> None:
    assert options(manifests)["config_map"] == f"disranker/{NAME}"
    config = named(manifests, "ConfigMap")
    assert "data" not in config  # or applying it again would take the weight back
    replica = pod(manifests, "disranker")
    (volume,) = (one for one in replica["volumes"] if one["name"] == "rollout")
    assert volume["configMap"] == {"name": NAME}
    (container,) = replica["containers"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "rollout")
    assert "subPath" not in mount  # it would never be renewed
    assert settings(manifests).rollout_weights == Path(mount["mountPath"], WEIGHTS)


def settings(manifests: list[Manifest]) -> Settings:
    """Return the settings of the replicas, but for the file of the Secret."""
    (container,) = pod(manifests, "disranker")["containers"]
    (source,) = container["envFrom"]
    data = named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    known = {name.removeprefix(PREFIX).lower(): value for name, value in data.items()}
    del known["config"]
    return Settings(**known)


def test_candidate_comes_out_of_its_own_image(manifests: list[Manifest]) -> None:
    replica = pod(manifests, "disranker")
    (candidate,), (service,) = replica["initContainers"], replica["containers"]
    assert candidate["image"] == "disranker-candidate"  # for the overlay to name
    assert service["image"].startswith("registry.example/disranker:")
    *copy, source, target = candidate["command"]
    assert copy == ["cp", "-rT"]  # again after a crash, it makes the same folder
    assert source == str(Settings.model_fields["bundle"].default)
    assert settings(manifests).canary == Path(target)
    for container in (candidate, service):
        mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert Path(target).parent == Path(mounts["candidate"])


def test_there_is_one_decider_and_it_keeps_its_state(manifests: list[Manifest]) -> None:
    spec = named(manifests, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    found = pod(manifests)
    (container,), (volume,) = found["containers"], found["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == NAME
    assert named(manifests, "PersistentVolumeClaim")
    (work,) = set(re.findall(r"^WORKDIR (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    (mount,) = container["volumeMounts"]
    assert Path(mount["mountPath"]) == Path(work) / options(manifests)["folder"]
    (service,) = pod(manifests, "disranker")["containers"]
    assert container["image"] == service["image"]


def test_every_container_is_restricted_and_bounded(manifests: list[Manifest]) -> None:
    for name in (NAME, "disranker"):
        found = pod(manifests, name)
        shared = found["securityContext"]
        assert (shared["runAsNonRoot"], shared["fsGroup"]) == (True, 10001)
        assert found["enableServiceLinks"] is False
        for container in [*found["containers"], *found.get("initContainers", [])]:
            check_restricted(container)


def test_decider_reaches_what_it_asks_and_nobody_reaches_it(manifests: list[Manifest]) -> None:
    spec = named(manifests, "NetworkPolicy")["spec"]
    labels = named(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"] == labels
    assert (spec["policyTypes"], "ingress" in spec) == (["Egress"], False)
    (scaled,) = (one for one in manifests if one["kind"] == "ScaledObject")
    address = scaled["spec"]["triggers"][0]["metadata"]["serverAddress"]
    assert options(manifests)["prometheus"] == address
    ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert ports == {9090, 53, 443, 6443}
    assert address.endswith(":9090")
    others = [one for one in manifests if one["kind"] in ("Service", "PodDisruptionBudget")]
    for other in others:
        selector = other["spec"]["selector"]
        assert not selector.get("matchLabels", selector).items() <= labels.items()
