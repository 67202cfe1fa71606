"""A real server's bounds on connections, heads, requests and bodies."""

import asyncio
import json
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.connections import MAX_HEAD_BYTES, bounded_protocol
from tests.service.asking import assert_problem, request
from tests.service.test_server import TIMEOUT_S, Server, running

MAX_REQUESTS = 3
HEAD = b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Server]:
    flags = ("--max-requests", str(MAX_REQUESTS), "--max-bodies-mb", "1")
    with running(bundle_path, *flags) as server:
        yield server


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def ask(connection: socket.socket) -> None:
    """Send a request and read its whole answer, so that the connection is idle."""
    body = json.dumps(request()).encode()
    connection.sendall(HEAD.replace(b"900000", str(len(body)).encode()) + body)
    answer = b""
    while b"timings" not in answer:
        answer += connection.recv(65_536)


def test_a_connection_too_many_takes_the_place_of_an_idle_one(server: Server) -> None:
    connections = [connect(server) for _ in range(2 * MAX_REQUESTS)]
    for connection in connections:
        ask(connection)
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/livez").status_code == 200
        readable, _, _ = select.select(connections, [], [], 0.5)
        assert [connection.recv(1) for connection in readable] == [b""]
    for connection in connections:
        connection.close()


def test_a_head_without_end_breaks_its_connection(server: Server) -> None:
    with connect(server) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20_000_000)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_head_over_the_limit_is_431(server: Server, pieces: int) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ".ljust(MAX_HEAD_BYTES + 10, b"x")
    with connect(server) as connection:
        connection.sendall(head[: -10 * (pieces - 1) or None])
        if pieces == 2:
            readable, _, _ = select.select([connection], [], [], 0.5)
            assert not readable
            connection.sendall(head[-10:])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert problem["error_type"] == "head_too_large"
    assert str(MAX_HEAD_BYTES) in problem["detail"]


def test_uploads_beyond_the_bound_are_429_and_give_their_room_back(server: Server) -> None:
    with connect(server) as first, connect(server) as second:
        first.sendall(HEAD + b" " * 800_000)
        second.sendall(HEAD + b" " * 800_000)
        readable, _, _ = select.select([first, second], [], [], TIMEOUT_S)
        (refused,) = (connection.recv(65_536) for connection in readable)
    assert refused.startswith(b"HTTP/1.1 429")
    assert b"\r\nretry-after: 1\r\n" in refused
    padded = json.dumps(request()).encode().ljust(900_000)
    assert httpx.post(f"{server.url}/rank", content=padded).status_code == 200


def test_requests_beyond_the_bound_are_429_and_probes_are_answered(server: Server) -> None:
    uploads = [connect(server) for _ in range(MAX_REQUESTS)]
    for upload in uploads:
        upload.sendall(HEAD + b"{")
    with httpx.Client(base_url=server.url) as client:
        problem = assert_problem(client.post("/rank", json=request()), 429)
        assert problem["error_type"] == "overloaded"
        assert client.get("/readyz").status_code == 200
        for upload in uploads:
            upload.close()
        statuses = {client.post("/rank", json=request()).status_code for _ in range(50)}
        assert statuses <= {200, 429}
        assert client.post("/rank", json=request()).status_code == 200


@asynccontextmanager
async def refusing(**limits: float) -> AsyncIterator[tuple[str, int]]:
    """Serve an application that refuses every request before its body, and yield its address."""

    async def refuse(scope: Scope, _receive: Receive, send: Send) -> None:
        await Response(status_code=401)(scope, _receive, send)

    protocol = bounded_protocol(10, **limits)
    config = uvicorn.Config(refuse, http=protocol, ws="none", lifespan="off", log_config=None)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        uvicorn_server = uvicorn.Server(config)
        task = asyncio.create_task(uvicorn_server.serve(sockets=[sock]))
        yield sock.getsockname()
        uvicorn_server.should_exit = True
        await task


async def assert_ends(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""


@pytest.mark.anyio
@pytest.mark.parametrize("rest", [b"", b"x", b"x" * 100])
async def test_a_body_that_was_answered_already_is_not_awaited_for_ever(rest: bytes) -> None:
    """Any byte after the answer would end uvicorn's own wait for the next request, for good."""
    async with refusing(rest_timeout_s=0.2) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345" + HEAD)
        for _ in range(2):  # the first request came whole, the second did not
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
        writer.write(rest)
        await assert_ends(reader)
        writer.close()


@pytest.mark.anyio
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("drop", [b"", b"x"])
async def test_a_head_is_not_awaited_for_ever(drop: bytes, answered: bool) -> None:
    """Whether nothing more comes or a byte now and then, in the first request or a later one."""
    async with refusing(head_timeout_s=0.2) as address:
        reader, writer = await asyncio.open_connection(*address)
        if answered:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        end = asyncio.create_task(assert_ends(reader))
        while not end.done():
            writer.write(drop)
            await asyncio.sleep(0.02)
        await end
        writer.close()


@pytest.mark.anyio
async def test_a_connection_that_sends_nothing_is_closed_before_its_first_request_only() -> None:
    async with refusing(head_timeout_s=0.2) as address:
        silent, writer = await asyncio.open_connection(*address)
        idle, asking = await asyncio.open_connection(*address)
        for _ in range(2):
            asking.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await idle.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401")
            await asyncio.sleep(0.5)
        await assert_ends(silent)
        writer.close()
        asking.close()
