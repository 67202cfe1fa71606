"""The OpenAPI document and the service agree on all that schemathesis can think of."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Response

from service.server import listen
from tests.fuzz.run import Fuzzed
from tests.service.asking import api_key
from tests.service.test_server import running

EXAMPLES = 5
"""Random requests an operation; the examples and the edges of its schema are some sixty more."""


def test_no_request_makes_the_service_err_or_its_document_lie(
    bundle_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "keys.toml"
    digest = api_key("all")["sha256"]
    scopes = '["rank", "metrics", "admin", "variant"]'
    config.write_text(f'keys = [{{name = "all", sha256 = "{digest}", scopes = {scopes}}}]')
    fuzzed = Fuzzed()
    weights = ("--rollout-weights", str(tmp_path / "rollout" / "weights.json"))
    with running(bundle_path, "--config", str(config), "--admin", "true", *weights) as server:
        fuzzed.add(server.url, seed=1, examples=EXAMPLES, key="all")
        assert server.stop() == 0
    assert not fuzzed.failures, "\n".join(fuzzed.failures)
    assert fuzzed.cases > 500
    assert {200, 400, 405, 422} <= {status for _, status in fuzzed.statuses}
    assert fuzzed.statuses["POST /admin/rollout/start", 200] > 0
    assert [line for line in server.log if line["level"] == "error"] == []


@pytest.fixture
def liar() -> Iterator[str]:
    """Serve an application whose document is wrong about each of its operations."""
    app = FastAPI()

    @app.get("/status", response_class=Response)
    async def status() -> Response:
        return Response(status_code=201)

    @app.get("/error", response_class=Response, responses={500: {}})
    async def error() -> Response:
        return Response(status_code=500)

    @app.get("/body")
    async def body() -> int:
        return Response('"one"', media_type="application/json")  # type: ignore[return-value]

    @app.get("/constant")
    async def constant() -> float:
        return Response("NaN", media_type="application/json")  # type: ignore[return-value]

    with listen("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_a_document_that_lies_is_caught(liar: str) -> None:
    fuzzed = Fuzzed()
    fuzzed.add(liar, seed=1, examples=1)
    (found,) = fuzzed.failures
    for path in ("/status", "/error", "/body", "/constant"):
        assert f"curl -X GET {liar}{path}" in found
