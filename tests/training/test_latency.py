"""Latency table: operations against torch's own counter, weights against published counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from training.__main__ import main
from training.latency import Latency, Workload, measure, ratio
from training.latency_table import cost_per_million
from training.shapes import PAPER, STUDENTS, Shape

CPU = torch.device("cpu")
TOYS = (
    Shape("decoder", "decoder", 3, 32, 4, 2, 48, 60),
    Shape("bert", "bert", 2, 16, 2, 2, 40, 60),
)


@pytest.mark.parametrize("shape", TOYS, ids=lambda shape: str(shape.name))
@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 17)])
def test_operations_are_those_that_torch_counts(shape: Shape, batch: int, length: int) -> None:
    config = shape.build(device=CPU, dtype=torch.float32).config
    # The counter knows nothing of the CPU's fused attention.
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.ones(batch, length, dtype=torch.long))
    assert counter.get_total_flops() == pytest.approx(shape.flops(batch, length), rel=1e-3)


@pytest.mark.parametrize(
    ("place", "published"),
    [
        (0, 7_241_732_096 - 32000 * 4096 + 4096),  # Mistral-7B-v0.1, its head for words replaced
        (1, 109_482_240 + 769),  # bert-base-uncased and a head
    ],
)
def test_the_papers_shapes_have_the_published_number_of_weights(place: int, published: int) -> None:
    model = PAPER[place].build(device=torch.device("meta"), dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_minilm_and_tinybert_have_their_published_number_of_weights() -> None:
    published = {"6 × 384": 22_713_216, "4 × 312": 14_350_248}  # without a head
    for shape in STUDENTS:
        model = shape.build(device=torch.device("meta"), dtype=torch.float32)
        if shape.name in published:
            encoder = sum(
                parameter.numel() for parameter in model.get_submodule("bert").parameters()
            )
            assert encoder == published[shape.name]
    assert STUDENTS[0] == PAPER[1]  # the same BERT-base


def test_scores_are_finite_in_either_precision() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for shape in TOYS:
            model = shape.build(device=CPU, dtype=dtype)
            with torch.inference_mode():
                logits = model(input_ids=torch.full((2, 9), 5)).logits
            assert logits.shape == (2, 1)
            assert logits.dtype == dtype
            assert torch.isfinite(logits).all()


def test_every_shape_is_timed_in_every_round() -> None:
    workload = Workload(2, 8, torch.float32, CPU)
    found = measure(TOYS, workload, rounds=4, warm_up=1)
    assert [latency.shape.name for latency in found] == ["decoder", "bert"]
    for latency in found:
        assert len(latency.times_s) == 4
        assert (latency.times_s > 0).all()
        assert latency.flops_per_s > 0


def test_figures_by_hand() -> None:
    workload = Workload(10, 8, torch.float32, CPU)
    slow = Latency(TOYS[0], 1, 4e6, np.array([0.2, 0.4, 0.3]), 1e8)
    fast = Latency(TOYS[1], 1, 1e6, np.array([0.1, 0.1, 0.05]), 1e8)
    assert slow.milliseconds.value == pytest.approx(300)
    assert (slow.milliseconds.low, slow.milliseconds.high) == pytest.approx((200, 400))
    assert ratio(slow, fast).value == pytest.approx(4)
    assert slow.of_floor == pytest.approx(0.04 / 0.3)
    assert fast.documents_per_s(workload) == pytest.approx(100)
    assert cost_per_million(fast, workload, 3.6) == pytest.approx(10)


def test_the_table_states_its_conditions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sizes", "small", "--batch", "1", "--length", "4", "--rounds", "2"]
    outputs = ["--price-per-hour", "2.5", "--json", str(tmp_path / "out.json")]
    assert main(["latency", *arguments, "--precision", "fp32", *outputs]) == 0
    out = capsys.readouterr().out
    assert "batch 1 × 4 tokens, random weights, 2 rounds in turns" in out
    assert "cost of 1 M documents at 2.5 an hour" in out
    assert "| BERT 6 × 256 | 7 M |" in out
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [len(row["times_s"]) for row in figures["fp32"]] == [2, 2, 2]
