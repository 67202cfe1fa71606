"""What a lane costs, and what it answers when there is no time."""

from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from service.contract.bundle import Bundle
from service.contract.types import Candidate
from service.engines.local import LocalEngine
from service.ranking.admission import Ticket
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.cost import NOTHING, Cost
from service.ranking.lane import LocalLane
from service.scorers.onnx import OnnxScorer
from tests.service.fakes import Unqueued

pytestmark = pytest.mark.anyio

MB = 1_000_000
DOCUMENTS = [Candidate(summary=f"{n} kettle") for n in range(4)]


@pytest.fixture
def lane(bundle: Bundle) -> Iterator[LocalLane]:
    engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))
    lane = LocalLane(
        bundle.encoder(),
        Unqueued(engine),
        model="m",
        tokens=DocumentTokenCache(max_bytes=MB),
        scores=ScoreCache(max_bytes=MB),
    )
    yield lane
    lane.close()
    engine.close()


def at_most(tokens: int, seen: list[int]) -> Callable[[Cost], bool]:
    def fits(cost: Cost) -> bool:
        seen.append(cost.tokens)
        return cost.tokens <= tokens

    return fits


async def test_the_caches_are_asked_only_about_what_does_not_fit(
    lane: LocalLane, bundle: Bundle
) -> None:
    by_bytes = lane.price("cat", DOCUMENTS, lambda _: True)
    assert by_bytes.tokens > 0
    await lane.score("cat", DOCUMENTS, Ticket(monotonic() + 60))
    assert lane.price("cat", DOCUMENTS, lambda _: True) == by_bytes
    assert lane.price("cat", DOCUMENTS, at_most(0, [])) == NOTHING
    # Another query: ids are known and scores are not, so the cost is exact.
    pairs = bundle.encoder().encode("dog", DOCUMENTS)
    exact = Cost(sum(map(len, pairs)), max(map(len, pairs)))
    first = iter([False])
    assert lane.price("dog", DOCUMENTS, lambda _: next(first, True)) == exact


async def test_a_refusal_looks_no_further_than_it_must(lane: LocalLane) -> None:
    seen: list[int] = []
    by_bytes = lane.price("cat", DOCUMENTS * 100, at_most(0, seen))
    assert by_bytes.tokens > 0
    assert len(seen) == 2  # by bytes, and with the first candidate
    await lane.score("cat", DOCUMENTS, Ticket(monotonic() + 60))
    seen.clear()
    unknown = Candidate(summary="a document never seen")
    lane.price("cat", [*DOCUMENTS, unknown, *DOCUMENTS * 100], at_most(0, seen))
    assert len(seen) == 1 + len(DOCUMENTS) + 1


async def test_no_time_to_tokenise_is_an_answer_without_scores(lane: LocalLane) -> None:
    scores = await lane.score("cat", DOCUMENTS, Ticket(monotonic() - 1, partial=True))
    assert not scores.scored.any()
    assert set(scores.stages_s) == {"tokenise", "queue", "infer"}
