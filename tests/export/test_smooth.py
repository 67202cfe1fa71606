from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.onnx import export_fp32
from export.smooth import outlier_scale, smooth
from service.contract.encoding import PairEncoder, TokenPair
from service.contract.types import Candidate
from service.scorers.onnx import OnnxScorer
from tests.tiny import tiny_checkpoint

TEXTS = ("the cat", "a dog in the water", "boil water in the kettle", "capital of the cat", "42")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TokenPair]]:
    folder = tmp_path_factory.mktemp("smooth")
    checkpoint = tiny_checkpoint(folder / "checkpoint")
    export_fp32(checkpoint, folder / "model.onnx")
    encoder = PairEncoder.from_file(checkpoint / "tokenizer.json")
    return folder / "model.onnx", encoder.encode(
        "kettle", [Candidate(None, text) for text in TEXTS]
    )


def test_smoothing_keeps_every_score(graph: tuple[Path, list[TokenPair]]) -> None:
    source, pairs = graph
    target = source.with_name("smooth.onnx")
    smooth(source, target, pairs)
    before, after = OnnxScorer(source).score(pairs), OnnxScorer(target).score(pairs)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


def test_smoothed_inputs_are_scaled_down_by_what_their_weights_gain(
    graph: tuple[Path, list[TokenPair]],
) -> None:
    source, pairs = graph
    target = source.with_name("smooth.onnx")
    smooth(source, target, pairs)
    old = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    model = onnx.load(target).graph
    new = {t.name: numpy_helper.to_array(t) for t in model.initializer}
    changed = 0
    for node in model.node:
        factor = f"{node.name}_smooth"
        if factor in new:
            weight = node.input[1]
            np.testing.assert_allclose(new[weight] * new[factor][:, None], old[weight], rtol=1e-6)
            changed += int((new[factor] < 1).any())
    assert changed == 8  # attention, its output, and the two of the FFN, in each of two layers


def test_only_channels_above_the_percentile_are_scaled() -> None:
    ranges = np.ones(101, dtype=np.float32)
    ranges[7], ranges[50] = 20.0, 0.25
    scale = outlier_scale(ranges)
    assert scale[7] == 20.0
    assert np.delete(scale, 7).tolist() == [1.0] * 100


def test_a_dead_input_is_left_alone() -> None:
    assert outlier_scale(np.zeros(8, dtype=np.float32)).tolist() == [1.0] * 8
