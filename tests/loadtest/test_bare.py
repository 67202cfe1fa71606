"""The floor counts what it computes, and computes what the product's scorer does."""

from pathlib import Path

import numpy as np
import pytest

from loadtest.bench.bare import Setting, bare_loop, batches
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Candidate
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


def test_batches_hold_each_pair_once_beside_those_of_its_length(pairs: list[TokenPair]) -> None:
    calls = batches(pairs, 2)
    assert sorted(int(n) for call in calls for n in call["attention_mask"].sum(axis=1)) == sorted(
        map(len, pairs)
    )
    widths = sorted(call["input_ids"].shape[1] for call in calls)
    ranked = sorted(map(len, pairs))
    assert widths == sorted([ranked[1], ranked[3], ranked[4]])
