"""A GPU's code on the CPU, which takes the same buffers, and its refusal where there is no GPU."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.__main__ import main
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.runner import choose_runner
from service.scorers.bound import BoundScorer
from service.scorers.onnx import OnnxScorer
from service.settings import Settings, SettingsError

WIDTHS = (16, 48)


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> BoundScorer:
    return BoundScorer(bundle.model_path("fp32"), widths=WIDTHS, pad=0, device="cpu")


def some_pairs(n: int, *, seed: int = 0) -> list[TokenPair]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, WIDTHS[-1] + 1, size=n)
    return [
        TokenPair(draw.integers(5, 60, length), int(draw.integers(1, length))) for length in lengths
    ]


@pytest.mark.parametrize("n", [1, 4, 5, 60, 130])
def test_scores_are_those_of_pairs_alone(bundle: Bundle, scorer: BoundScorer, n: int) -> None:
    pairs = some_pairs(n, seed=n)
    expected = OnnxScorer(bundle.model_path("fp32")).score(pairs)
    assert np.abs(scorer.score(pairs) - expected).max() <= 1e-4


def test_no_call_sees_what_the_one_before_left(scorer: BoundScorer) -> None:
    long, short = some_pairs(40, seed=1), some_pairs(2, seed=2)
    before = scorer.score(short)
    scorer.score(long)
    assert scorer.score(short).tobytes() == before.tobytes()
    assert scorer.score([]).shape == (0,)


def test_threads_do_not_share_a_buffer_at_a_time(scorer: BoundScorer) -> None:
    requests = [some_pairs(3, seed=seed) for seed in range(16)]
    alone = [scorer.score(pairs).tobytes() for pairs in requests]
    with ThreadPoolExecutor(8) as threads:
        assert [found.tobytes() for found in threads.map(scorer.score, requests)] == alone


def test_what_is_run_counts_the_rows_and_columns_filled_up(scorer: BoundScorer) -> None:
    narrow, wide = (TokenPair(np.full(length, 5), 1) for length in (10, 30))
    assert scorer.padded_tokens([narrow]) == 4 * 16
    assert scorer.padded_tokens([wide] * 5 + [narrow]) == 12 * 48 + 4 * 16
    assert scorer.padded_tokens([wide] * 49) == (48 + 4) * 48


def test_without_cuda_nothing_is_served_by_the_cpu_instead(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="the installed onnxruntime has no CUDA"):
        choose_runner(Settings(bundle=bundle.root, device="cuda"), bundle)
    assert main(["serve", "--bundle", str(bundle.root), "--device", "cuda", "--port", "0"]) == 2
    assert r"pip install '.[gpu]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"device": "cuda", "engine": "native"}, "native has no device cuda"),
        ({"device": "cuda", "precision": "int8"}, "not int8"),
        ({"device": "cuda", "precision": "fp16"}, "with cuda_model, fp16"),
        ({"cuda_model": Path("model.onnx")}, "is for the device cuda"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    bundle: Bundle, fields: dict[str, object], reason: str
) -> None:
    settings = Settings.model_validate({"bundle": bundle.root} | fields)
    with pytest.raises(SettingsError, match=reason):
        choose_runner(settings, bundle)


def test_a_gpu_is_handed_full_batches() -> None:
    assert Settings().launch_of(256) == 512
    assert Settings(device="cuda").launch_of(256) == 48 * 256
    assert Settings(device="cuda", launch_tokens=100).launch_of(256) == 100
