import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import pytest

from service.contract.types import Scores
from service.engines.engine import Engine
from service.ranking.admission import Ticket
from service.ranking.batcher import Batcher, QueueDepth
from service.ranking.cores import Cores
from service.ranking.errors import NotReadyError, ScoringError
from service.ranking.health import WatchedEngine
from service.ranking.pace import Pace
from tests.service.fakes import GatedEngine, HungEngine, ShortEngine, pair

pytestmark = pytest.mark.anyio

LATER = 60.0


@asynccontextmanager
async def batching(
    engine: Engine,
    *,
    concurrency: int = 1,
    max_batch: int = 48,
    launch_tokens: int = 512,
    hang_s: float = 60,
) -> AsyncIterator[Batcher]:
    watched = WatchedEngine(engine, on_fault=lambda _reason: None, hang_s=hang_s)
    pace = Pace(concurrency=concurrency)
    batcher = Batcher(
        watched,
        pace=pace,
        cores=Cores(concurrency),
        max_batch=max_batch,
        launch_tokens=launch_tokens,
    )
    batcher.start()
    with anyio.fail_after(20):
        yield batcher
        await batcher.stop()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def submit(
    batcher: Batcher, *found: int, tokens: int = 8, after_s: float = LATER, low: bool = False
) -> asyncio.Task[list[float]]:
    async def score() -> list[float]:
        pairs = [pair(tokens=tokens, mark=mark) for mark in found]
        scores = await batcher.score(pairs, Ticket(monotonic() + after_s, low=low))
        assert scores.complete
        assert scores.real_tokens == scores.padded_tokens == tokens * len(pairs)
        return [float(value) for value in scores.values]

    return asyncio.create_task(score())


async def test_concurrent_requests_share_a_launch_and_keep_their_scores() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine) as batcher:
        first = submit(batcher, 1)
        await settle()
        second, third = submit(batcher, 2, 3), submit(batcher, 4)
        await settle()
        engine.open.set()
        assert [await task for task in (first, second, third)] == [[1.0], [2.0, 3.0], [4.0]]
    assert engine.launches == [[1], [2, 3, 4]]


async def test_a_request_spreads_over_as_many_launches_as_the_engine_runs_at_once() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, concurrency=2, max_batch=2) as batcher:
        request = submit(batcher, 1, 2, 3, 4, 5)
        await settle()
        assert engine.launches == [[1, 2], [3]]  # half of what waits, then half of the rest
        engine.open.set()
        assert await request == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert engine.launches == [[1, 2], [3], [4], [5]]


async def test_time_in_launches_side_by_side_counts_once() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, concurrency=2, max_batch=1) as batcher:
        began = monotonic()
        request = asyncio.create_task(batcher.score([pair(), pair()], Ticket(began + LATER)))
        await settle()
        await asyncio.sleep(0.05)
        engine.open.set()
        stages_s = (await request).stages_s
        assert 0.04 <= stages_s["infer"] <= monotonic() - began


async def test_earliest_deadline_goes_first() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, max_batch=1) as batcher:
        running = submit(batcher, 0)
        await settle()
        waiting = [submit(batcher, mark, after_s=after) for mark, after in ((1, 50), (2, 20))]
        waiting.append(submit(batcher, 3, after_s=35))
        await settle()
        engine.open.set()
        await asyncio.gather(running, *waiting)
    assert engine.launches == [[0], [2], [3], [1]]


async def test_urgent_request_overtakes_a_long_one_between_launches() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, launch_tokens=16) as batcher:
        long = submit(batcher, 1, 2, 3, 4, 5, 6, after_s=50)
        await settle()
        urgent = submit(batcher, 9, after_s=10)
        await settle()
        engine.open.set()
        assert await urgent == [9.0]
        assert await long == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert engine.launches == [[1, 2], [9, 3], [4, 5], [6]]


async def test_launch_holds_at_most_max_batch_pairs_and_a_long_pair_goes_alone() -> None:
    engine = GatedEngine()
    async with batching(engine, max_batch=3, launch_tokens=20) as batcher:
        await submit(batcher, *range(7), tokens=4)
        await submit(batcher, 7, 8, tokens=256)
    assert engine.launches == [[0, 1, 2], [3, 4, 5], [6], [7], [8]]


async def test_cancelled_request_costs_nothing() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine) as batcher:
        running = submit(batcher, 0)
        await settle()
        gone, stays = submit(batcher, 1, 2), submit(batcher, 3)
        await settle()
        assert batcher.depth == QueueDepth(requests=2, pairs=3, tokens=24)
        gone.cancel()
        await settle()
        assert batcher.depth == QueueDepth(requests=1, pairs=1, tokens=8)
        engine.open.set()
        assert [await running, await stays] == [[0.0], [3.0]]
    assert engine.launches == [[0], [3]]


async def test_expired_request_is_answered_unscored_and_costs_nothing() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine) as batcher:
        running = submit(batcher, 0)
        await settle()
        scores = await batcher.score([pair(mark=1)], Ticket(monotonic() + 0.01))
        assert not scores.scored.any()
        late = await batcher.score([pair(mark=2)], Ticket(monotonic() - 1))
        assert not late.scored.any()
        engine.open.set()
        await running
    assert engine.launches == [[0]]


async def test_what_was_scored_by_the_deadline_is_returned() -> None:
    class OneLaunchEngine(GatedEngine):
        async def score(self, pairs, deadline):  # type: ignore[no-untyped-def]
            if self.launches:
                self.open.clear()
            return await super().score(pairs, deadline)

    engine = OneLaunchEngine()
    async with batching(engine, max_batch=2) as batcher:
        scores = await batcher.score([pair(mark=n) for n in (1, 2, 3)], Ticket(monotonic() + 0.05))
        assert scores.scored.tolist() == [True, True, False]
        assert scores.values[:2].tolist() == [1.0, 2.0]
        engine.open.set()


async def test_failing_launch_fails_only_the_request_at_fault() -> None:
    engine = GatedEngine(opened=False)
    engine.poison = 2
    async with batching(engine, max_batch=3) as batcher:
        running = submit(batcher, 0)
        await settle()
        tasks = [submit(batcher, 1), submit(batcher, 2, 3, 4), submit(batcher, 5)]
        await settle()
        engine.open.set()
        results = await asyncio.gather(running, *tasks, return_exceptions=True)
    assert [results[0], results[1], results[3]] == [[0.0], [1.0], [5.0]]
    assert isinstance(results[2], ScoringError)
    # Repeated one by one; the failed request's rest never runs.
    assert engine.launches == [[0], [1, 2, 3], [1], [2, 3], [5]]


async def test_low_priority_runs_only_while_nothing_normal_waits_and_never_mixed() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, launch_tokens=64) as batcher:
        running = submit(batcher, 0)
        await settle()
        low = submit(batcher, 1, 2, 3, low=True, after_s=LATER / 4)
        normal = [submit(batcher, 4), submit(batcher, 5, after_s=LATER / 2)]
        await settle()
        engine.open.set()
        await asyncio.gather(running, *normal, low)
    assert engine.launches == [[0], [5, 4], [1, 2], [3]]  # a quarter of a launch at a time


async def test_a_normal_request_waits_for_one_low_launch_at_most() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, launch_tokens=32) as batcher:
        low = submit(batcher, 1, 2, 3, 4, low=True)
        await settle()
        normal = submit(batcher, 9)
        await settle()
        engine.open.set()
        await asyncio.gather(low, normal)
    assert engine.launches == [[1], [9], [2], [3], [4]]


async def test_a_request_sure_to_expire_is_answered_at_once_and_not_run() -> None:
    engine, pace = GatedEngine(opened=False), Pace()
    pace.observe(100, 1.0)
    batcher = Batcher(engine, pace=pace, cores=Cores(1))
    batcher.start()
    running = submit(batcher, 0)
    await settle()

    def ask(mark: int, *, partial: bool = False) -> asyncio.Task[Scores]:
        pairs = [pair(tokens=600, mark=mark), pair(tokens=600, mark=mark)]
        ticket = Ticket(monotonic() + 10, partial=partial)
        return asyncio.create_task(batcher.score(pairs, ticket))

    hopeless, part, alone = ask(1), ask(2, partial=True), ask(3)
    await settle()
    with anyio.fail_after(5):
        engine.open.set()
        assert not (await hopeless).scored.any()
        assert (await part).complete  # the engine was faster than ever before
        await asyncio.gather(running, alone)
        await batcher.stop()
    assert engine.launches == [[0], [2], [2], [3], [3]]


async def test_work_that_was_of_no_use_is_counted() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine, launch_tokens=8) as batcher:
        expired = await batcher.score([pair(mark=1)], Ticket(monotonic() + 0.01))
        assert not expired.scored.any()
        engine.open.set()
        await submit(batcher, 2)
        assert batcher.wasted_tokens == 8
        engine.open.clear()
        gone = submit(batcher, 3, 4)
        await settle()
        gone.cancel()
        await settle()
        engine.open.set()
        await submit(batcher, 5)
        assert batcher.wasted_tokens == 16  # the second pair was never run


async def test_wrong_number_of_scores_is_a_failure() -> None:
    async with batching(ShortEngine()) as batcher:
        with pytest.raises(ScoringError) as caught:
            await batcher.score([pair(), pair()], Ticket(monotonic() + LATER))
    assert "1 scores for 2 pairs" in str(caught.value.__cause__)


async def test_hung_engine_leaves_no_waiter_unanswered() -> None:
    async with batching(HungEngine(), hang_s=0.15) as batcher:
        many = [batcher.score([pair()], Ticket(monotonic() + after)) for after in (0.02, 0.05, 0.1)]
        for scores in await asyncio.gather(*many):
            assert not scores.scored.any()
        assert batcher.depth == QueueDepth(0, 0, 0)


async def test_stop_answers_what_waits_and_takes_no_more() -> None:
    engine = GatedEngine(opened=False)
    batcher = Batcher(engine, pace=Pace(), cores=Cores(1), max_batch=1)
    batcher.start()
    tasks = [submit(batcher, mark) for mark in range(3)]
    await settle()
    stop = asyncio.create_task(batcher.stop())
    await settle()
    with pytest.raises(NotReadyError):
        await batcher.score([pair()], Ticket(monotonic() + LATER))
    engine.open.set()
    assert await asyncio.gather(*tasks) == [[0.0], [1.0], [2.0]]
    await stop


async def test_queue_and_inference_seconds_add_up_to_the_wait() -> None:
    engine = GatedEngine(opened=False)
    async with batching(engine) as batcher:
        began = monotonic()
        running = submit(batcher, 0)
        await settle()
        waiting = asyncio.create_task(batcher.score([pair()], Ticket(monotonic() + LATER)))
        await asyncio.sleep(0.02)
        engine.open.set()
        await running
        stages = (await waiting).stages_s
        total = monotonic() - began
    assert set(stages) == {"queue", "infer"}
    assert sum(stages.values()) <= total


async def test_no_pairs_need_no_launch() -> None:
    engine = GatedEngine()
    async with batching(engine) as batcher:
        assert (await batcher.score([], Ticket(monotonic() + LATER))).complete
    assert engine.launches == []
