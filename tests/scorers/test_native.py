"""The int8 kernel against torch that rounds as it does, and every pair on its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.scorers import native
from service.scorers.native import NativeScorer
from service.scorers.onnx import OnnxScorer
from service.scorers.weights import HEADER, Int8Weights

pytestmark = pytest.mark.skipif(
    native.why_not() is not None, reason=f"no native engine: {native.why_not()}"
)

LENGTHS = (3, 4, 15, 16, 17, 31, 33, 40, 47, 64, 100, 129, 255, 256)


@pytest.fixture(scope="module", params=native.KERNELS)
def scorer(weights: Path, request: pytest.FixtureRequest) -> NativeScorer:
    if request.param not in native.kernels():
        pytest.skip(f"this CPU does not run the {request.param} kernel")
    return NativeScorer(weights, kernel=request.param)


def some_pairs(lengths: Sequence[int], *, vocabulary: int, seed: int = 0) -> list[TokenPair]:
    draw = np.random.default_rng(seed)
    return [
        TokenPair(draw.integers(0, vocabulary, length), int(draw.integers(1, length)))
        for length in lengths
    ]


def vocabulary_of(weights: Path) -> int:
    return len(Int8Weights.read(weights).words[0])


def rounded(x: Tensor) -> Tensor:
    """Return x on 256 steps over each token's own range."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low) / 255
    return torch.round((x - low) / scale) * scale + low


def torch_model(weights: Int8Weights, *, round_activations: bool) -> BertForSequenceClassification:
    """Return Hugging Face's model with the weights that the int8 ones stand for."""
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(weights.words[0]),
        hidden_size=weights.words[0].shape[1],
        num_hidden_layers=weights.layers,
        num_attention_heads=weights.heads,
        intermediate_size=weights.feed_forward,
        max_position_embeddings=len(weights["bert.embeddings.position_embeddings.weight"]),
        layer_norm_eps=weights.norm_epsilon,
        num_labels=1,
    )
    model = BertForSequenceClassification(config)  # type: ignore[no-untyped-call]
    state = {name: torch.from_numpy(values) for name, values in weights.dequantised().items()}
    model.load_state_dict(state, strict=True)
    model.train(False)
    if round_activations:
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name != "classifier":
                module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return model


def torch_scores(model: BertForSequenceClassification, pairs: Sequence[TokenPair]) -> list[float]:
    with torch.inference_mode():
        return [
            float(
                model(
                    torch.from_numpy(pair.input_ids)[None],
                    token_type_ids=torch.from_numpy(pair.token_type_ids)[None],
                ).logits
            )
            for pair in pairs
        ]


def test_scores_are_those_of_torch_with_rounded_activations(
    weights: Path, scorer: NativeScorer
) -> None:
    loaded = Int8Weights.read(weights)
    pairs = some_pairs(LENGTHS, vocabulary=vocabulary_of(weights))
    found = scorer.score(pairs)
    rounding = torch_scores(torch_model(loaded, round_activations=True), pairs)
    exact = torch_scores(torch_model(loaded, round_activations=False), pairs)
    # A value on the edge of a step may fall to either side, so not to the last digit.
    near = np.abs(found - rounding).mean()
    assert near < 0.02 * np.std(exact)
    assert near < 0.5 * np.abs(np.array(rounding) - exact).mean()


@pytest.mark.parametrize(("hidden", "heads", "feed_forward"), [(96, 2, 48), (48, 1, 208)])
def test_other_shapes_are_scored_as_torch_does(
    tmp_path: Path, hidden: int, heads: int, feed_forward: int
) -> None:
    from export.int8 import quantize_int8

    torch.manual_seed(hidden)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=3,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=80,
        num_labels=1,
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    stored, graph = tmp_path / "w.safetensors", tmp_path / "m.onnx"
    quantize_int8(tmp_path, graph, stored, positions=70)
    pairs = some_pairs((2, 9, 18, 70), vocabulary=50)
    model = torch_model(Int8Weights.read(stored), round_activations=True)
    expected = np.array(torch_scores(model, pairs))
    spread = np.std(expected)
    for kernel in native.kernels():
        found = NativeScorer(stored, kernel=kernel).score(pairs)
        assert np.abs(found - expected).max() < 0.1 * spread
    assert np.abs(OnnxScorer(graph).score(pairs) - expected).max() < 0.1 * spread


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(2, 256), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_score_is_the_same_bit_for_bit_in_any_company(
    weights: Path, scorer: NativeScorer, lengths: list[int], seed: int
) -> None:
    pairs = some_pairs(lengths, vocabulary=vocabulary_of(weights), seed=seed)
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    assert scorer.score(pairs).tobytes() == alone.tobytes()
    assert scorer.score(pairs[::-1])[::-1].tobytes() == alone.tobytes()


def test_threads_side_by_side_score_alike(weights: Path, scorer: NativeScorer) -> None:
    pairs = some_pairs(LENGTHS * 3, vocabulary=vocabulary_of(weights))
    alone = scorer.score(pairs).tobytes()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: scorer.score(pairs).tobytes(), range(24)))
    assert set(found) == {alone}


def test_both_engines_rank_the_golden_pairs_alike(bundle: Bundle, scorer: NativeScorer) -> None:
    onnx, encoder = OnnxScorer(bundle.model_path("int8")), bundle.encoder()
    pairs = [
        pair for golden in bundle.golden for pair in encoder.encode(golden.query, golden.candidates)
    ]
    expected, found = onnx.score(pairs), scorer.score(pairs)
    assert np.abs(found - expected).mean() < 0.02 * np.std(expected)
    assert scorer.score([]).shape == (0,)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [([1, 10**6], "id of up to 1000000"), ([1, -1], "id"), ([1] * 257, "257 tokens")],
)
def test_ids_and_lengths_beyond_the_model_are_refused_and_harm_nobody(
    weights: Path, scorer: NativeScorer, ids: list[int], complaint: str
) -> None:
    good = some_pairs((5,), vocabulary=vocabulary_of(weights))
    before = scorer.score(good)
    with pytest.raises(ValueError, match=complaint):
        scorer.score([*good, TokenPair(np.array(ids), 1)])
    assert scorer.score(good).tobytes() == before.tobytes()


def damaged(weights: Path, target: Path, *, without: str = "", **changes: object) -> Path:
    """Write a copy that lacks a tensor or says something else of itself."""
    tensors = {name: values for name, values in load_file(weights).items() if name != without}
    told = json.loads(Int8Weights.read(weights).metadata()[HEADER]) | changes
    save_file(tensors, target, metadata={HEADER: json.dumps(told)})
    return target


def test_files_that_are_no_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    missing = damaged(weights, tmp_path / "a", without="bert.pooler.dense.bias")
    with pytest.raises(ValueError, match=r"lack bert\.pooler\.dense\.bias"):
        NativeScorer(missing)
    with pytest.raises(ValueError, match="format is 'other'"):
        NativeScorer(damaged(weights, tmp_path / "b", format="other"))
    with pytest.raises(ValueError, match="head width in steps of 16, got 8"):
        NativeScorer(damaged(weights, tmp_path / "c", heads=8))
    (tmp_path / "d").write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read"):
        NativeScorer(tmp_path / "d")
