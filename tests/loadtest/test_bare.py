"""The floor counts what it computes, and computes what the product's scorer does."""

from pathlib import Path

import numpy as np
import pytest

from loadtest.bench.bare import Setting, bare_loop, batches, padded
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Candidate
from service.scorers import native
from service.scorers.onnx import OnnxScorer


@pytest.fixture(scope="module")
def pairs(bundle_path: Path) -> list[TokenPair]:
    texts = ["cat", "the dog", "water in the kettle", "capital of the dog and cat", "x y z"]
    return Bundle.open(bundle_path).encoder().encode("cat", [Candidate(None, t) for t in texts])


def test_loop_scores_as_the_product_and_counts_real_tokens(
    bundle_path: Path, pairs: list[TokenPair]
) -> None:
    model = Bundle.open(bundle_path).model_path("int8")
    with bare_loop(model, pairs) as loop:
        assert np.allclose(loop.scores(), OnnxScorer(model).score(pairs))
        alone = loop.run(Setting(calls=2, threads=1, batch=1), seconds=0.1)
        together = loop.run(Setting(calls=1, threads=1, batch=5), seconds=0.1)
    assert alone.tokens == alone.padded > 0
    longest, total = max(map(len, pairs)), sum(map(len, pairs))
    assert together.padded / together.tokens == pytest.approx(5 * longest / total)


@pytest.mark.skipif(native.why_not() is not None, reason="the native kernel does not run here")
def test_loop_runs_the_native_engine(bundle_path: Path, pairs: list[TokenPair]) -> None:
    weights = Bundle.open(bundle_path).weights_path("int8")
    assert weights is not None
    with bare_loop(weights, pairs) as loop:
        run = loop.run(Setting(calls=1, threads=1, batch=5), seconds=0.1)
    assert run.tokens == run.padded > 0
    assert run.tokens % sum(map(len, pairs)) == 0


def test_batches_hold_each_pair_once_beside_those_of_its_length(pairs: list[TokenPair]) -> None:
    calls = batches(pairs, 2)
    ranked = sorted(map(len, pairs))
    assert sorted(len(pair) for call in calls for pair in call) == ranked
    widths = sorted(padded(call)["input_ids"].shape[1] for call in calls)
    assert widths == [ranked[1], ranked[3], ranked[4]]
