"""Work that ends when its client leaves, and only then."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from service.api.body import while_connected

pytestmark = pytest.mark.anyio


class Client:
    """A client whose request has arrived; it leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.listening = 0

    async def receive(self) -> dict[str, Any]:
        self.listening += 1
        try:
            await self.left.wait()
        finally:
            self.listening -= 1
        return {"type": "http.disconnect"}

    def serve(self, work: Coroutine[Any, Any, str]) -> asyncio.Task[tuple[str, int]]:
        """Return a task of the work's answer and of how often the task is still to be cancelled."""

        async def handle() -> tuple[str, int]:
            task = asyncio.current_task()
            assert task is not None
            try:
                answer = await while_connected(request, work)
            except ClientDisconnect:
                answer = "client left"
            await settle()
            assert self.listening == 0
            return answer, task.cancelling()

        request = Request({"type": "http", "headers": []}, self.receive)
        return asyncio.create_task(handle())


class Work:
    """Work that ends when told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.began = self.cancelled = False

    async def run(self) -> str:
        self.began = True
        try:
            async with asyncio.timeout(30):
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_work_of_a_client_that_stays_is_answered() -> None:
    client, work = Client(), Work()
    task = client.serve(work.run())
    await settle()
    work.go_on.set()
    with anyio.fail_after(5):
        assert await task == ("done", 0)
    assert not work.cancelled


async def test_work_of_a_client_that_leaves_is_cancelled() -> None:
    client, work = Client(), Work()
    task = client.serve(work.run())
    await settle()
    client.left.set()
    with anyio.fail_after(5):
        assert await task == ("client left", 0)
    assert work.cancelled


async def test_a_client_that_had_left_before_costs_little() -> None:
    client, work = Client(), Work()
    client.left.set()
    with anyio.fail_after(5):
        assert await client.serve(work.run()) == ("client left", 0)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_stop_from_outside_stays_a_cancellation(leaves: bool) -> None:
    client, work = Client(), Work()
    task = client.serve(work.run())
    await settle()
    task.cancel()
    if leaves:
        client.left.set()
    with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled
    assert client.listening == 0


async def test_an_error_of_the_work_is_passed_on() -> None:
    async def fail() -> str:
        await asyncio.sleep(0)
        raise ValueError("of the work")

    client = Client()
    with pytest.raises(ValueError, match="of the work"):
        await client.serve(fail())
    await settle()
    assert client.listening == 0


async def test_leaving_as_the_work_ends_is_either_and_leaves_nothing_behind() -> None:
    for leave_first in (False, True):
        client, work = Client(), Work()
        task = client.serve(work.run())
        await settle()
        for event in (client.left, work.go_on)[:: 1 if leave_first else -1]:
            event.set()
        with anyio.fail_after(5):
            answer, pending = await task
        assert answer in ("done", "client left")
        assert pending == 0


async def test_an_answer_that_is_there_at_once_waits_for_nobody() -> None:
    others: list[str] = []
    request = Request({"type": "http", "headers": []}, Client().receive)

    async def refuse() -> str:
        return "refused"

    asyncio.get_running_loop().call_soon(others.append, "another request")
    assert await while_connected(request, refuse()) == "refused"
    assert not others
    await settle()
