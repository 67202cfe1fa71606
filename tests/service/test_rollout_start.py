"""Lanes from the command line: a canary and a shadow beside the bundle, in a real server."""

from pathlib import Path

import httpx

from tests.service.asking import request
from tests.service.test_server import refused, running


def test_a_canary_and_a_shadow_are_loaded_at_start(bundle_path: Path, candidate_path: Path) -> None:
    flags = ("--canary", str(candidate_path), "--canary-weight", "1", "--shadow")
    with (
        running(bundle_path, *flags, str(candidate_path), "--admin", "true") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        lanes = client.get("/admin/lanes").json()["lanes"]
        assert [lane["lane"] for lane in lanes] == ["stable", "canary", "shadow"]
        assert [lane["weight"] for lane in lanes] == [0, 1, 0]
        while not all(lane["ready"] for lane in client.get("/admin/lanes").json()["lanes"]):
            pass
        answer = client.post("/rank", json=request())
        assert answer.json()["model"]["name"] == "candidate"
        assert answer.headers["x-variant"] == "canary"
        assert server.stop() == 0
    (line,) = [line for line in server.log if line["logger"] == "service.requests"]
    assert (line["variant"], line["model"]) == ("canary", "candidate")


def test_a_canary_that_cannot_be_opened_is_a_start_that_fails(
    bundle_path: Path, tmp_path: Path
) -> None:
    assert "manifest.json" in refused(bundle_path, "--canary", str(tmp_path))
    assert "canary_weight: " in refused(bundle_path, "--canary-weight", "1.5")


def test_an_event_log_without_a_shadow_is_a_start_that_fails(
    bundle_path: Path, tmp_path: Path
) -> None:
    assert "event_log: there is no shadow" in refused(bundle_path, "--event-log", str(tmp_path))
