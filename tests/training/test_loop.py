"""The loop on a model of one weight: what is kept, and the schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from training.loop import ByStep, Part, schedule, train
from training.recipe import Optimiser, RecipeError
from training.state import Progress

Kept = tuple[float, dict[str, Any]]
"""The weight that was kept, and its row of the history."""


class Killed(BaseException):
    """Ends a run in the middle of a step."""


def one_weight() -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model


def run(
    folder: Path,
    figures: list[float],
    *,
    model: nn.Linear | None = None,
    fingerprint: str = "a",
    killed_at: int | None = None,
) -> tuple[Progress, list[Kept]]:
    """Train for a step a figure; return the progress and what was kept."""
    kept: list[Kept] = []

    def loss(student: nn.Module) -> Tensor:
        found: Tensor = (student(torch.ones(1, 1)) - 1).square().sum()
        return found

    def keep(weights: dict[str, Tensor], row: dict[str, Any]) -> None:
        kept.append((weights["weight"].item(), dict(row)))
        if row["step"] == killed_at:
            raise Killed

    def evaluate(_: nn.Module) -> dict[str, float]:
        return {"quality": figures[steps_done()]}

    def steps_done() -> int:
        state = folder / "state" / "state.json"
        return int(json.loads(state.read_text())["step"]) if state.exists() else 0

    progress = train(
        model or one_weight(),
        accelerator=Accelerator(),
        folder=folder,
        fingerprint=fingerprint,
        settings=Optimiser(learning_rate=0.1),
        steps=len(figures),
        seed=0,
        save_every=100,
        evaluate_every=1,
        feed=ByStep(lambda _: [loss]),
        evaluate=evaluate,
        figure="quality",
        keep=keep,
    )
    return progress, kept


def test_the_best_step_is_kept_not_the_last(tmp_path: Path) -> None:
    model = one_weight()
    progress, kept = run(tmp_path, [0.2, 0.9, 0.4, 0.9, 0.1], model=model)
    assert [row["step"] for _, row in kept] == [1, 2]  # an equal figure later is no better
    assert progress.best == 0.9
    assert [row["quality"] for row in progress.history] == [0.2, 0.9, 0.4, 0.9, 0.1]
    assert kept[1][0] < next(model.parameters()).item()  # the weight went on growing


def test_a_row_carries_the_mean_loss_since_the_last_evaluation(tmp_path: Path) -> None:
    progress, _ = run(tmp_path, [0.1, 0.2])
    assert progress.history[0]["loss"] == 1.0  # weight 0, target 1
    assert progress.history[1]["loss"] < 1.0
    assert progress.losses == []


def test_a_finished_state_trains_no_further(tmp_path: Path) -> None:
    first, _ = run(tmp_path, [0.1, 0.2])
    again, kept = run(tmp_path, [0.1, 0.2])
    assert again == first
    assert kept == []


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, [0.1])
    with pytest.raises(RecipeError, match="another recipe, base or other data"):
        run(tmp_path, [0.1], fingerprint="b")


def test_a_state_killed_between_its_two_renames_is_found_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path, [0.1, 0.2])
    (tmp_path / "state").rename(tmp_path / ".state.old")
    (tmp_path / ".state.new").mkdir()
    (tmp_path / ".state.new" / "state.json").write_text("half", encoding="utf-8")
    again, _ = run(tmp_path, [0.1, 0.2])
    assert again == first
    assert json.loads((tmp_path / "state" / "state.json").read_text())["step"] == 2


def test_a_kill_after_a_best_was_kept_and_before_its_state_was_saved_changes_nothing(
    tmp_path: Path,
) -> None:
    figures = [0.2, 0.5, 0.9, 0.1]
    whole, kept = run(tmp_path / "whole", figures)
    with pytest.raises(Killed):
        run(tmp_path / "killed", figures, killed_at=3)
    resumed, again = run(tmp_path / "killed", figures)
    assert resumed == whole
    assert again == kept[2:]
    for name in ("model.safetensors", "optimiser.safetensors", "state.json"):
        states = [tmp_path / run_name / "state" / name for run_name in ("whole", "killed")]
        assert states[0].read_bytes() == states[1].read_bytes()


def test_the_rate_rises_then_falls_to_nothing() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert max(factors) == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 7])
def test_no_step_is_lost_to_the_schedule(steps: int, warmup: float) -> None:
    assert all(0 < schedule(step, steps, warmup) <= 1 for step in range(steps))


def fitted(folder: Path, parts: list[float], targets: list[float]) -> float:
    """Train one weight to several targets, each its own micro-batch, and return it."""
    model = one_weight()

    def part(target: float, weight: float) -> Part:
        return lambda student: weight * (student(torch.ones(1, 1)) - target).square().sum()

    train(
        model,
        accelerator=Accelerator(),
        folder=folder,
        fingerprint="a",
        settings=Optimiser(learning_rate=0.1, max_grad_norm=100),
        steps=3,
        seed=0,
        save_every=100,
        evaluate_every=100,
        feed=ByStep(lambda _: [part(*each) for each in zip(targets, parts, strict=True)]),
        evaluate=lambda _: {"quality": 0.0},
        figure="quality",
        keep=lambda _weights, _row: None,
    )
    return next(model.parameters()).item()


def test_the_parts_of_a_step_add_up_to_one_batch(tmp_path: Path) -> None:
    # Three tokens with target 1 and one with target 5, in two micro-batches or in one.
    parts = fitted(tmp_path / "parts", [3 / 4, 1 / 4], [1.0, 5.0])
    whole = fitted(tmp_path / "whole", [1 / 4] * 4, [1.0, 1.0, 1.0, 5.0])
    assert parts == pytest.approx(whole, rel=1e-6)


class InfiniteGradient(torch.autograd.Function):
    """Passes its input on, and an infinite gradient back."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def infinite_loss(student: nn.Module) -> Tensor:
    found: Tensor = student(torch.ones(1, 1)).sum() + torch.inf
    return found


def infinite_gradient(student: nn.Module) -> Tensor:
    found: Tensor = InfiniteGradient.apply(student(torch.ones(1, 1)))  # type: ignore[no-untyped-call]
    return found.sum()


@pytest.mark.parametrize(
    ("part", "message"),
    [(infinite_loss, "the loss is inf"), (infinite_gradient, "the gradient is inf")],
)
def test_what_is_not_finite_never_reaches_the_weights(
    part: Part, message: str, tmp_path: Path
) -> None:
    model = one_weight()
    with pytest.raises(RecipeError, match=message):
        train(
            model,
            accelerator=Accelerator(),
            folder=tmp_path,
            fingerprint="a",
            settings=Optimiser(),
            steps=1,
            seed=0,
            save_every=1,
            evaluate_every=1,
            feed=ByStep(lambda _: [part]),
            evaluate=lambda _: {"quality": 0.0},
            figure="quality",
            keep=lambda _weights, _row: None,
        )
    assert next(model.parameters()).item() == 0.0
    assert not (tmp_path / "state").exists()
