"""Several models on the cores of one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from service.engines.engine import Engine
from service.ranking.batcher import Batcher
from service.ranking.cores import Cores
from service.ranking.pace import Pace
from tests.service.fakes import GatedEngine
from tests.service.test_batcher import LATER, settle, submit

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def queue(engine: Engine, cores: Cores, *, max_batch: int = 48) -> AsyncIterator[Batcher]:
    batcher = Batcher(engine, pace=Pace(), cores=cores, max_batch=max_batch)
    batcher.start()
    with anyio.fail_after(10):
        yield batcher
        await batcher.stop()


async def test_two_models_launch_in_the_order_of_their_requests_deadlines() -> None:
    engine = GatedEngine(opened=False)  # both models', so that it sees the order
    cores = Cores(1)
    async with (
        queue(engine, cores, max_batch=1) as stable,
        queue(engine, cores, max_batch=1) as canary,
    ):
        running = submit(stable, 0)
        await settle()
        late, urgent = submit(stable, 1, after_s=50), submit(canary, 2, after_s=20)
        later = submit(canary, 3, after_s=55)
        await settle()
        assert engine.launches == [[0]]  # one core, whoever asks
        engine.open.set()
        await asyncio.gather(running, late, urgent, later)
    assert engine.launches == [[0], [2], [1], [3]]


async def test_low_priority_of_one_model_gives_way_to_normal_of_another() -> None:
    engine = GatedEngine(opened=False)
    cores = Cores(1)
    async with queue(engine, cores) as stable, queue(engine, cores, max_batch=1) as shadow:
        running = submit(stable, 0)
        await settle()
        mirrored = submit(shadow, 1, 2, low=True, after_s=LATER / 4)
        normal = submit(stable, 3)
        await settle()
        engine.open.set()
        await asyncio.gather(running, mirrored, normal)
    assert engine.launches == [[0], [3], [1], [2]]


async def test_a_model_that_leaves_is_answered_and_the_other_goes_on() -> None:
    engine = GatedEngine(opened=False)
    cores = Cores(2)
    async with queue(engine, cores, max_batch=1) as stays, AsyncExitStack() as stack:
        leaves = await stack.enter_async_context(queue(engine, cores, max_batch=1))
        last = submit(leaves, 1, 2, 3)
        await settle()
        engine.open.set()
        await stack.aclose()
        assert await last == [1.0, 2.0, 3.0]
        assert await submit(stays, 4) == [4.0]


async def test_cores_that_nobody_uses_can_be_used_again() -> None:
    engine, cores = GatedEngine(), Cores(2)
    for mark in (1, 2):
        async with queue(engine, cores) as batcher:
            assert await submit(batcher, mark) == [float(mark)]


async def test_a_model_that_hangs_can_be_left_and_holds_only_its_launch() -> None:
    hung, engine = GatedEngine(opened=False), GatedEngine()
    cores = Cores(2)
    async with queue(engine, cores) as stays:
        leaves = Batcher(hung, pace=Pace(), cores=cores)
        leaves.start()
        stuck = submit(leaves, 1)
        await settle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await leaves.stop()
        assert await submit(stays, 2) == [2.0]  # on the other core
        hung.open.set()
        assert await stuck == [1.0]
