"""The engine in this process: several threads, the same scores."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from time import monotonic

import numpy as np
import pytest

from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.manifest import Precision
from service.contract.types import Candidate, Float32s
from service.engines.local import LocalEngine
from service.runtime import NICENESS
from service.scorers.onnx import OnnxScorer

pytestmark = pytest.mark.anyio

TEXTS = ("the cat", "a dog in the water", "boil water in the kettle " * 8, "capital", "42 " * 60)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
async def test_calls_side_by_side_score_bit_for_bit_as_one_after_another(
    bundle: Bundle, precision: Precision
) -> None:
    scorer = OnnxScorer(bundle.model_path(precision), threads=1)
    pairs = bundle.encoder().encode("kettle", [Candidate(None, text) for text in TEXTS])
    alone = scorer.score(pairs)
    engine = LocalEngine(scorer, workers=4)
    calls = (engine.score(pairs[start:] + pairs[:start], monotonic() + 60) for start in range(5))
    for start, scores in enumerate(await asyncio.gather(*calls)):
        assert scores.complete
        assert np.roll(scores.values, start).tobytes() == alone.tobytes()
    engine.close()


async def test_pairs_past_the_deadline_are_left_unscored(bundle: Bundle) -> None:
    engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))
    pairs = bundle.encoder().encode("kettle", [Candidate(None, text) for text in TEXTS])
    scores = await engine.score(pairs, monotonic() - 1)
    assert not scores.scored.any()
    assert scores.real_tokens == 0
    engine.close()


class Nicenesses:
    """A scorer that notes how much the thread it runs on gives way to others."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        self.seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return np.zeros(len(pairs), dtype=np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux alone")
async def test_calls_give_way_to_the_event_loop(bundle: Bundle) -> None:
    scorer = Nicenesses()
    engine = LocalEngine(scorer)
    pairs = bundle.encoder().encode("kettle", [Candidate(None, "the cat")])
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    await engine.score(pairs, monotonic() + 60)
    assert scorer.seen == [min(19, before + NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    engine.close()
