"""The weights in a ConfigMap: what Kubernetes is asked, what may go wrong, and what is lost."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from service.__main__ import main
from service.rollout.canary import Plan
from service.rollout.config_map import (
    ConfigMap,
    ConfigMapError,
    KubernetesApi,
    in_cluster,
    tell,
)
from service.rollout.progress import ask, roll_back
from service.rollout.store import Store
from tests.service.rollout.cluster import (
    PATH,
    PLACE,
    Cluster,
    Failure,
    refusing,
    reply,
    running_cluster,
)
from tests.service.rollout.test_rollout_process import (
    TIMEOUT_S,
    Instance,
    deciding,
    instance,
    kill_at,
    rollout,
    wait_for,
)

__all__ = ["instance"]  # a fixture


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as found:
        yield found


def config_map(cluster: Cluster, account: Path | None = None) -> ConfigMap:
    return ConfigMap(PLACE, KubernetesApi(cluster.url, account, timeout_s=0.5))


def account(folder: Path, authority: Path, token: str) -> Path:
    """Return a folder as a pod has it."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(authority.read_bytes())
    (folder / "token").write_text(f"{token}\n")
    return folder


def certificates(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the files of a new authority and of a server on loopback with its key."""
    authority, server = folder / f"{name}.crt", folder / f"{name}.pem"
    made = trustme.CA()
    made.cert_pem.write_to_path(str(authority))
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(server))
    return authority, server


def test_a_text_is_written_once_and_again_where_others_changed_it(cluster: Cluster) -> None:
    found = config_map(cluster)
    assert found.ensure('{"a": 1}')
    assert cluster.data == {"weights.json": '{"a": 1}'}
    assert not found.ensure('{"a": 1}')
    assert cluster.methods() == ["GET", "PATCH", "GET"]
    cluster.data = {"weights.json": "theirs", "notes": "kept"}
    assert found.ensure('{"a": 1}')
    assert cluster.data == {"weights.json": '{"a": 1}', "notes": "kept"}
    _, _, headers = cluster.asked[-1]
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert "Authorization" not in headers


def test_a_path_before_the_api_is_kept(cluster: Cluster) -> None:
    api = KubernetesApi(f"{cluster.url}/clusters/one/")
    with pytest.raises(ConfigMapError, match="404"):
        ConfigMap(PLACE, api).ensure("x")
    assert [path for _, path, _ in cluster.asked] == [f"/clusters/one{PATH}"]


def test_in_a_cluster_the_server_is_checked_and_each_request_has_the_token_of_then(
    tmp_path: Path,
) -> None:
    (own, server), (other, _) = certificates(tmp_path, "own"), certificates(tmp_path, "other")
    with running_cluster(server) as cluster:
        cluster.bearer = "one"
        folder = account(tmp_path / "account", own, "one")
        found = config_map(cluster, folder)
        assert found.ensure("x")
        cluster.bearer = "two"
        with pytest.raises(ConfigMapError, match="401 Unauthorized"):
            found.ensure("x")
        account(folder, own, "two")  # rotated
        assert not found.ensure("x")

        before = len(cluster.asked)
        account(folder, other, "two")
        with pytest.raises(ConfigMapError, match="certificate verify failed"):
            found.ensure("x")
        with pytest.raises(ConfigMapError, match="certificate verify failed"):
            config_map(cluster).ensure("x")  # none of the system's authorities either
        assert len(cluster.asked) == before


def test_a_token_that_is_none_is_not_told(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\nsecret")
    with pytest.raises(ConfigMapError, match="this is no token") as error:
        config_map(cluster, tmp_path).ensure("x")
    assert "secret" not in str(error.value)
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigMapError, match="No such file"):
        config_map(cluster, tmp_path).ensure("x")
    assert cluster.asked == []


def hanging(_handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"kind"')


def nothing(_handler: BaseHTTPRequestHandler) -> None:
    """Close the connection."""


def answering(content: bytes, status: int = 200) -> Failure:
    return lambda handler: reply(handler, status, content)


FAILURES: list[tuple[Failure, str]] = [
    (refusing(403, 'configmaps "x" is forbidden: User "y" cannot get'), "403 configmaps .* cannot"),
    (refusing(404), "404 because"),
    (refusing(409), "409 because"),
    (refusing(429), "429 because"),
    (refusing(500), "500 because"),
    (answering(b"<html>Bad\nGateway</html>", 502), "502 <html>Bad Gateway"),
    (answering(b"x" * 9_000, 503), "503 x{300}$"),
    (answering(b"not json"), "no JSON"),
    (answering(b"[1]"), "no ConfigMap"),
    (answering(b'{"kind": "Secret"}'), "no ConfigMap"),
    (answering(b"\xff\xfe"), "no JSON"),
    (hanging, "timed out"),
    (cut, "IncompleteRead|no JSON"),
    (nothing, "GET http"),
]


@pytest.mark.parametrize(("failure", "told"), FAILURES)
def test_a_failure_says_what_it_is(cluster: Cluster, failure: Failure, told: str) -> None:
    cluster.failure = failure
    with pytest.raises(ConfigMapError, match=told):
        config_map(cluster).ensure("x")
    cluster.failure = None
    assert config_map(cluster).ensure("x")


def test_nobody_listening_is_a_failure_too() -> None:
    with running_cluster() as cluster:
        pass
    with pytest.raises(ConfigMapError, match="refused"):
        config_map(cluster).ensure("x")


def test_a_token_is_not_carried_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with running_cluster() as elsewhere:
        location = f"{elsewhere.url}/"
        cluster.failure = lambda handler: reply(handler, 302, b"", location=location)
        with pytest.raises(ConfigMapError, match="302"):
            config_map(cluster, tmp_path).ensure("x")
        assert elsewhere.asked == []


def test_a_patch_that_fails_is_a_failure(cluster: Cluster) -> None:
    def only_reading(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            return answering(b'{"kind": "ConfigMap", "data": null}')(handler)
        return refusing(403, "cannot patch")(handler)

    cluster.failure = only_reading
    with pytest.raises(ConfigMapError, match=r"PATCH .*: 403 cannot patch"):
        config_map(cluster).ensure("x")


@pytest.mark.parametrize(
    "place", ["", "name", "a/b/c", "a/", "/b", "A/b", "a/b?x=1", "a/..", "a/-"]
)
def test_a_place_is_a_namespace_and_a_name(place: str) -> None:
    with pytest.raises(ConfigMapError, match="NAMESPACE/NAME"):
        ConfigMap(place, KubernetesApi("http://127.0.0.1:1"))


def test_a_pod_knows_its_cluster(tmp_path: Path) -> None:
    service = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_cluster(service, tmp_path) == KubernetesApi("https://10.0.0.1:443", tmp_path)
    six = in_cluster(service | {"KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert six.url == "https://[fd00::1]:443"
    with pytest.raises(ConfigMapError, match="--kubernetes-api"):
        in_cluster({})


def test_flags_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    command = ["rollout", "run", "--folder", str(tmp_path / "new"), "--metrics", "http://x"]
    for *flags, told in (
        ("--config-map", "a/b", "KUBERNETES_SERVICE_HOST"),
        ("--config-map", "name", "--kubernetes-api", "http://x", "NAMESPACE/NAME"),
        ("--kubernetes-api", "http://x", "wants --config-map"),
        ("--config-map", "a/b", "--kubernetes-api", "ftp://x", "an http URL"),
    ):
        assert main([*command, *flags]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_failure_is_seen_in_the_status_until_replicas_are_told(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, found = Store(tmp_path), config_map(cluster)
    tell(found, store.restore(), store)
    assert cluster.asked == []  # there is nothing to tell yet
    cluster.failure = refusing(403, "cannot get")
    tell(found, store.change(partial(ask, plan=None, now=0.0)), store)
    rollout(tmp_path, "status")
    assert "replicas are not told" in capsys.readouterr().out
    assert "403 cannot get" in store.load().untold
    cluster.failure = None
    tell(found, store.change(partial(roll_back, reason="asked to", now=1.0)), store)
    rollout(tmp_path, "status")
    assert "replicas are not told" not in capsys.readouterr().out
    assert cluster.desired == store.load().desired


def test_a_rollout_goes_on_while_the_config_map_cannot_be_written(
    instance: Instance, cluster: Cluster, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    cluster.failure = refusing(500)
    rollout(tmp_path, "start", "--step-s", "0")
    with deciding(tmp_path, instance.url, *flags(cluster)) as decider:
        state = wait_for(store, "finished")
        assert (state.weight, "500 because" in state.untold) == (1.0, True)
        assert cluster.data is None
        cluster.failure = None
        until(lambda: not store.load().untold)
        assert cluster.desired == store.load().desired
        cluster.data = {"weights.json": "theirs"}
        until(lambda: cluster.data == {"weights.json": store.weights.read_text()})
        rollout(tmp_path, "rollback")  # people's word is told, too
        until(lambda: cluster.desired.weight == 0)
        decider.send_signal(signal.SIGTERM)  # as a pod is ended
        assert decider.wait(TIMEOUT_S) == 0


def test_a_failure_that_cannot_be_noted_is_no_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked = store.change(partial(ask, plan=Plan(), now=0.0))
    (tmp_path / ".state.json.part").mkdir()  # as on a full disk
    tell(ConfigMap("search/weights", KubernetesApi("http://127.0.0.1:9")), asked, store)
    assert store.load() == asked


def test_a_decider_killed_between_state_and_config_map_tells_it_when_it_is_back(
    instance: Instance, cluster: Cluster, tmp_path: Path
) -> None:
    store, asked, killed = Store(tmp_path), threading.Event(), threading.Event()

    def stuck(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PATCH" and store.load().weight > 0.01:
            asked.set()
            killed.wait(TIMEOUT_S)
            return
        cluster.reply(handler)

    cluster.failure = stuck
    rollout(tmp_path, "start", "--step-s", "0")
    with deciding(tmp_path, instance.url, *flags(cluster)) as decider:
        assert asked.wait(TIMEOUT_S)
        kill_at(decider, 0)
        killed.set()
    state = store.load()
    assert (state.status, state.weight) == ("running", 0.05)
    assert cluster.desired.generation < state.generation  # behind, and never ahead
    assert cluster.desired.weight == 0.01
    instance.flows = False
    cluster.failure = None
    with deciding(tmp_path, instance.url, *flags(cluster)):
        until(lambda: cluster.desired == state.desired)
    assert store.load().generation == state.generation


def flags(cluster: Cluster) -> tuple[str, ...]:
    return "--config-map", PLACE, "--kubernetes-api", cluster.url


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)
