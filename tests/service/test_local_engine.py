"""The engine in this process: several threads, the same scores."""

import asyncio
from time import monotonic

import numpy as np
import pytest

from service.contract.bundle import Bundle, Precision
from service.contract.types import Candidate
from service.engines.local import LocalEngine
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
