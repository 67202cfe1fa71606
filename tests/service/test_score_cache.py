"""The cache of scores alone: exact, bounded, and never in the way of a deadline."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract.bundle import Bundle
from service.contract.encoder import Encoder
from service.contract.encoding import TokenPair
from service.contract.types import Candidate, Scores
from service.engines.engine import Engine, EngineError
from service.engines.local import LocalEngine
from service.ranking.admission import Ticket
from service.ranking.caches import CacheStats, ScoreCache
from service.scorers.onnx import OnnxScorer
from tests.service.fakes import GatedEngine, HungEngine, Unqueued, marks, pair

pytestmark = pytest.mark.anyio

LATER = 60.0
MB = 1_000_000


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return bundle.encoder()


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> OnnxScorer:
    return OnnxScorer(bundle.model_path("int8"), threads=1)


@pytest.fixture
def scores() -> ScoreCache:
    return ScoreCache(max_bytes=MB)


@pytest.fixture
def tiny() -> ScoreCache:
    return ScoreCache(max_bytes=1)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def of(found: Sequence[int]) -> list[TokenPair]:
    return [pair(mark=mark) for mark in found]


def ask(
    cache: ScoreCache,
    engine: Engine,
    *found: int,
    after_s: float = LATER,
    low: bool = False,
    model: str = "m",
) -> asyncio.Task[Scores]:
    pairs, keys = of(found), cache.keys(model, of(found))
    ticket = Ticket(monotonic() + after_s, low=low)
    return asyncio.create_task(cache.score(Unqueued(engine), pairs, keys, ticket))


def lookups(stats: CacheStats) -> tuple[int, int, int]:
    return stats.hits, stats.misses, stats.shared


async def test_scores_stay_within_the_bound() -> None:
    engine = GatedEngine()
    small = ScoreCache(max_bytes=20_000)
    for start in range(0, 4_000, 200):
        answer = await ask(small, engine, *range(start, start + 200))
        assert answer.values.tolist() == list(range(start, start + 200))
        assert small.stats.size_bytes <= 20_000
    assert 50 <= small.stats.entries <= 200
    assert (await ask(small, engine, 3_999)).values.tolist() == [3_999]
    assert small.stats.hits == 1


async def test_least_recently_used_goes_first() -> None:
    engine = GatedEngine()
    small = ScoreCache(max_bytes=20_000)
    await ask(small, engine, 1)
    await ask(small, engine, 2)
    for n in range(100, 3_000, 25):
        await ask(small, engine, *range(n, n + 25))
        await ask(small, engine, 1)
    await ask(small, engine, 2)
    assert engine.launches.count([1]) == 1
    assert engine.launches.count([2]) == 2


async def test_a_stored_score_is_not_computed_again(scores: ScoreCache) -> None:
    engine = GatedEngine()
    first = await ask(scores, engine, 3, 1, 2)
    again = await ask(scores, engine, 2, 5, 3)
    assert first.values.tolist() == [3, 1, 2]
    assert again.values.tolist() == [2, 5, 3]
    assert engine.launches == [[3, 1, 2], [5]]
    assert lookups(scores.stats) == (2, 4, 0)
    assert (again.real_tokens, again.padded_tokens) == (24, 8)
    whole = await ask(scores, engine, 1, 2)
    assert (whole.real_tokens, whole.padded_tokens) == (16, 0)
    assert dict(whole.stages_s) == {"queue": 0.0, "infer": 0.0}


async def test_a_key_is_the_model_and_all_of_the_pair(scores: ScoreCache) -> None:
    engine = GatedEngine()
    await ask(scores, engine, 1)
    await ask(scores, engine, 1, model="another")
    assert engine.launches == [[1], [1]]
    ids = np.arange(8, dtype=np.int64)
    longer = np.arange(9, dtype=np.int64)
    pairs = [TokenPair(ids, 1), TokenPair(ids, 2), TokenPair(longer, 1)]
    assert len({*scores.keys("m", pairs), *scores.keys("n", pairs)}) == 6


async def test_duplicates_are_scored_once(scores: ScoreCache) -> None:
    engine = GatedEngine()
    answer = await ask(scores, engine, 7, 1, 7, 7)
    assert answer.values.tolist() == [7, 1, 7, 7]
    assert answer.complete
    assert engine.launches == [[7, 1]]
    assert lookups(scores.stats) == (0, 2, 2)
    assert (answer.real_tokens, answer.padded_tokens) == (32, 16)


async def test_concurrent_equal_pairs_are_scored_once(scores: ScoreCache) -> None:
    engine = GatedEngine(opened=False)
    first = ask(scores, engine, 1, 2)
    await settle()
    others = [ask(scores, engine, 2, 3), ask(scores, engine, 1), ask(scores, engine, 3, 3)]
    await settle()
    engine.open.set()
    assert (await first).values.tolist() == [1, 2]
    assert [(await other).values.tolist() for other in others] == [[2, 3], [1], [3, 3]]
    assert engine.launches == [[1, 2], [3]]
    assert lookups(scores.stats) == (0, 3, 4)


async def test_an_urgent_pair_does_not_wait_behind_a_later_deadline(scores: ScoreCache) -> None:
    slow, fast = GatedEngine(opened=False), GatedEngine()
    patient = ask(scores, slow, 1, 2)
    await settle()
    with anyio.fail_after(5):
        urgent = await ask(scores, fast, 2, after_s=LATER / 2)
    assert urgent.values.tolist() == [2]
    slow.open.set()
    assert (await patient).values.tolist() == [1, 2]


async def test_a_normal_pair_does_not_wait_behind_a_low_one(scores: ScoreCache) -> None:
    slow, fast = GatedEngine(opened=False), GatedEngine()
    low = ask(scores, slow, 1, 2, after_s=LATER / 2, low=True)
    await settle()
    with anyio.fail_after(5):
        normal = await ask(scores, fast, 2)
    assert normal.values.tolist() == [2]
    slow.open.set()
    assert (await low).values.tolist() == [1, 2]


async def test_later_requests_wait_for_the_most_urgent_flight(scores: ScoreCache) -> None:
    slow, fast, never = GatedEngine(opened=False), GatedEngine(opened=False), GatedEngine()
    patient = ask(scores, slow, 1)
    await settle()
    urgent = ask(scores, fast, 1, after_s=LATER / 4)
    await settle()
    between = ask(scores, never, 1, after_s=LATER / 2)
    await settle()
    fast.open.set()
    assert (await urgent).values.tolist() == (await between).values.tolist() == [1]
    assert never.launches == []
    assert not patient.done()
    slow.open.set()
    await patient


async def test_a_flight_that_was_overtaken_does_not_end_the_urgent_one(tiny: ScoreCache) -> None:
    slow, fast, never = GatedEngine(opened=False), GatedEngine(opened=False), GatedEngine()
    patient = ask(tiny, slow, 1)
    await settle()
    urgent = ask(tiny, fast, 1, after_s=LATER / 4)
    await settle()
    slow.open.set()
    await patient
    late = ask(tiny, never, 1)
    await settle()
    fast.open.set()
    assert (await urgent).values.tolist() == (await late).values.tolist() == [1]
    assert never.launches == []


async def test_a_flights_scores_reach_who_waits_even_where_nothing_fits(tiny: ScoreCache) -> None:
    engine = GatedEngine(opened=False)
    asked = [ask(tiny, engine, 1, 2), ask(tiny, engine, 2)]
    await settle()
    engine.open.set()
    assert [(await one).values.tolist() for one in asked] == [[1, 2], [2]]
    assert engine.launches == [[1, 2]]
    assert tiny.stats.entries == 0


@pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
async def test_whoever_waits_for_a_lost_flight_scores_itself(scores: ScoreCache, end: str) -> None:
    class OwnerFails(GatedEngine):
        async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
            if not self.launches:
                self.launches.append(marks(pairs))
                await self.open.wait()
                if end == "failed":
                    raise EngineError("broken")
                n = len(pairs)
                return Scores(np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.bool_))
            return await super().score(pairs, deadline)

    engine = OwnerFails(opened=False)
    owner = ask(scores, engine, 1, 2, after_s=1)
    await settle()
    waiters = [ask(scores, engine, 2, 1), ask(scores, engine, 1, 9)]
    await settle()
    if end == "cancelled":
        owner.cancel()
        await settle()
    engine.open.set()
    assert (await waiters[0]).values.tolist() == [2, 1]
    assert (await waiters[1]).values.tolist() == [1, 9]
    if end == "expired":
        assert not (await owner).scored.any()
    else:
        (outcome,) = await asyncio.gather(owner, return_exceptions=True)
        assert isinstance(outcome, EngineError | asyncio.CancelledError)
    assert engine.launches[0] == [1, 2]
    assert (await ask(scores, engine, 1, 2, 9)).complete
    assert sum(lookups(scores.stats)) == 2 + 2 + 2 + 3


async def test_what_an_expired_flight_did_score_is_taken(scores: ScoreCache) -> None:
    class Half(GatedEngine):
        async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
            whole = await super().score(pairs, deadline)
            if len(self.launches) == 1:
                whole.scored[1:] = False
            return whole

    engine = Half(opened=False)
    owner = ask(scores, engine, 1, 2, after_s=1)
    await settle()
    waiter = ask(scores, engine, 1, 2)
    await settle()
    engine.open.set()
    assert (await owner).scored.tolist() == [True, False]
    assert (await waiter).values.tolist() == [1, 2]
    assert engine.launches == [[1, 2], [2]]


async def test_a_cancelled_waiter_leaves_the_flight_alone(scores: ScoreCache) -> None:
    engine = GatedEngine(opened=False)
    owner = ask(scores, engine, 1)
    await settle()
    waiter = ask(scores, engine, 1)
    await settle()
    waiter.cancel()
    await settle()
    assert waiter.cancelled()
    engine.open.set()
    assert (await owner).values.tolist() == [1]


async def test_a_waiter_expires_at_its_own_deadline(scores: ScoreCache) -> None:
    owner = ask(scores, HungEngine(), 1, after_s=0.02)
    await settle()
    with anyio.fail_after(5):
        waiter = await ask(scores, GatedEngine(), 1, 2, after_s=0.04)
    assert waiter.scored.tolist() == [False, True]
    owner.cancel()


async def test_a_failed_launch_stores_nothing(scores: ScoreCache) -> None:
    engine = GatedEngine()
    engine.poison = 1
    with pytest.raises(EngineError):
        await ask(scores, engine, 1, 2)
    engine.poison = None
    assert (await ask(scores, engine, 1, 2)).values.tolist() == [1, 2]
    assert engine.launches == [[1, 2], [1, 2]]


async def test_a_score_that_is_not_finite_is_not_kept(scores: ScoreCache) -> None:
    class Nan(GatedEngine):
        async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
            scores = await super().score(pairs, deadline)
            return replace(scores, values=scores.values * np.float32("nan"))

    assert np.isnan((await ask(scores, Nan(), 1)).values).all()
    assert (await ask(scores, GatedEngine(), 1)).values.tolist() == [1]


async def test_switched_off_every_pair_is_scored_every_time() -> None:
    off, engine = ScoreCache(max_bytes=0), GatedEngine()
    for _ in range(2):
        assert (await ask(off, engine, 1, 1)).values.tolist() == [1, 1]
    assert engine.launches == [[1, 1], [1, 1]]
    assert lookups(off.stats) == (0, 0, 0)


STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 9), max_size=6),
        st.sampled_from((0.0, 0.5, LATER, 2 * LATER)),
        st.sampled_from(("wait", "wait", "wait", "cancel", "break")),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, max_bytes=st.sampled_from((1, 1_000, MB)))
async def test_scores_equal_the_models_whatever_else_happens(
    bundle: Bundle,
    encoder: Encoder,
    scorer: OnnxScorer,
    steps: list[tuple[list[int], float, str, bool]],
    max_bytes: int,
) -> None:
    """Real scores bit for bit, under concurrency, duplicates, failures, cancels and expiry."""
    texts = ["", "cat", "the dog", "boil water " * 9, "42", "cat", "kettle ", "is", "to", "capital"]
    all_pairs = encoder.encode("water", [Candidate(summary=text) for text in texts])
    alone = scorer.score(all_pairs)

    class Fragile(LocalEngine):
        broken = False

        async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
            if self.broken:
                await asyncio.sleep(0)
                raise EngineError("broken")
            return await super().score(pairs, deadline)

    engine, cache, running = Fragile(scorer, workers=2), ScoreCache(max_bytes=max_bytes), []
    for found, after_s, action, pause in steps:
        engine.broken = action == "break"
        pairs = [all_pairs[i] for i in found]
        keys = cache.keys(bundle.manifest.version, pairs)
        ticket = Ticket(monotonic() + after_s)
        task = asyncio.create_task(cache.score(Unqueued(engine), pairs, keys, ticket))
        running.append((task, found, after_s, action))
        await settle()
        if action == "cancel":
            task.cancel()
        if pause:
            await asyncio.sleep(0.001)
    engine.broken = False
    with anyio.fail_after(20):
        for task, found, after_s, action in running:
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome, BaseException):
                assert action == "cancel" or isinstance(outcome, EngineError)
                continue
            expected = alone[found]
            assert outcome.complete or after_s < LATER
            assert outcome.values[outcome.scored].tobytes() == expected[outcome.scored].tobytes()
    engine.close()
