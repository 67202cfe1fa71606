"""The training loop: one optimiser step after another, resumable after a kill at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from service.contract.folder import replaced_folder, restore_folder
from training.recipe import Optimiser, RecipeError

STATE = "state"
HEAD = "classifier"

StepLoss = Callable[[nn.Module, int], Tensor]
Evaluate = Callable[[nn.Module], dict[str, float]]
Keep = Callable[[nn.Module, dict[str, Any]], None]


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        best: The best validation figure so far.
        history: One row per evaluation: step, mean training loss since the last one, figures.
        losses: Training losses since the last evaluation.
    """

    step: int = 0
    best: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    *,
    accelerator: Accelerator,
    folder: Path,
    fingerprint: str,
    settings: Optimiser,
    steps: int,
    seed: int,
    save_every: int,
    evaluate_every: int,
    step_loss: StepLoss,
    evaluate: Evaluate,
    figure: str,
    keep: Keep,
) -> Progress:
    """Train the model and return the run's progress; goes on where an earlier run stopped.

    All randomness of a step is drawn from (seed, step), so a resumed run repeats the
    uninterrupted one: same weights, same history, on the same hardware and thread count.

    Args:
        model: The student; trained in place.
        accelerator: Chooses device, precision and processes.
        folder: The run's folder; its `state` is replaced every `save_every` steps.
        fingerprint: Of recipe and inputs; a state with another one is refused.
        settings: Optimiser and schedule.
        steps: Optimiser steps of the whole run.
        seed: Of dropout; each process adds its rank.
        save_every: Steps between states.
        evaluate_every: Steps between evaluations; the last step is always evaluated.
        step_loss: Loss of one step, from the model and the step's number.
        evaluate: Validation figures of the model.
        figure: Name of the figure to maximise.
        keep: Called with the bare model and the history row whenever the figure is the best.

    Raises:
        RecipeError: The folder holds the state of another run, or a loss is not finite.
    """
    optimiser = _optimiser(model, settings)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    restore_folder(folder / STATE)
    progress = _load(folder / STATE, fingerprint, model, optimiser)
    prepared, prepared_optimiser = accelerator.prepare(model, optimiser)
    bar = tqdm(
        total=steps,
        initial=progress.step,
        unit="step",
        disable=not accelerator.is_main_process,
        smoothing=0.05,
    )
    while progress.step < steps:
        step = progress.step
        torch.manual_seed((seed * 1_000_003 + step) * 4096 + accelerator.process_index)
        for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
            group["lr"] = rate * schedule(step, steps, settings.warmup)
        prepared.train()
        loss = step_loss(prepared, step)
        if not torch.isfinite(loss):
            raise RecipeError(f"step {step}: the loss is {loss.item()}; lower the learning rate")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(prepared.parameters(), settings.max_grad_norm)
        prepared_optimiser.step()
        prepared_optimiser.zero_grad()
        progress.step += 1
        progress.losses.append(loss.item())
        bar.update()
        bar.set_postfix(loss=f"{progress.losses[-1]:.3f}")
        evaluating = progress.step % evaluate_every == 0 or progress.step == steps
        if evaluating:
            _evaluate(prepared, accelerator, progress, evaluate, figure, keep)
        if evaluating or progress.step % save_every == 0:
            _save(folder / STATE, fingerprint, accelerator, model, optimiser, progress)
    bar.close()
    return progress


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate: linear up over warmup · steps, then down to 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (steps - step) / max(steps - rising, 1.0))


def _evaluate(
    model: nn.Module,
    accelerator: Accelerator,
    progress: Progress,
    evaluate: Evaluate,
    figure: str,
    keep: Keep,
) -> None:
    model.eval()
    with torch.no_grad():
        figures = evaluate(model)
    loss = sum(progress.losses) / len(progress.losses)
    row = {"step": float(progress.step), "loss": loss, **figures}
    progress.losses.clear()
    progress.history.append(row)
    shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
    if accelerator.is_main_process:
        tqdm.write(f"step {progress.step}  loss {loss:.4f}  {shown}")
    if figures[figure] > progress.best:
        progress.best = figures[figure]
        if accelerator.is_main_process:
            keep(accelerator.unwrap_model(model), row)


def _optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = head_rate if name.startswith(HEAD) else settings.learning_rate
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0  # none on biases and norms
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": part, "lr": rate, "weight_decay": decay}
            for (rate, decay), part in groups.items()
        ]
    )


def _save(
    folder: Path,
    fingerprint: str,
    accelerator: Accelerator,
    model: nn.Module,
    optimiser: torch.optim.AdamW,
    progress: Progress,
) -> None:
    """Write the state as safetensors and JSON, in one replacement."""
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    moments = {
        f"{place}.{name}": tensor.contiguous()
        for place, slots in optimiser.state_dict()["state"].items()
        for name, tensor in slots.items()
    }
    with replaced_folder(folder) as scratch:
        save_file(
            {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
            scratch / "model.safetensors",
        )
        save_file(moments, scratch / "optimiser.safetensors")
        fields = {
            "fingerprint": fingerprint,
            "step": progress.step,
            "best": progress.best,
            "history": progress.history,
            "losses": progress.losses,
        }
        (scratch / "state.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")


def _load(
    folder: Path, fingerprint: str, model: nn.Module, optimiser: torch.optim.AdamW
) -> Progress:
    """Restore model and optimiser from a state, if there is one."""
    if not folder.exists():
        return Progress()
    fields = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if fields["fingerprint"] != fingerprint:
        raise RecipeError(
            f"{folder.parent} holds a run of another recipe or other data; "
            "give the recipe a new name, or start over with --restart"
        )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "optimiser.safetensors").items():
        place, name = key.split(".")
        slots.setdefault(int(place), {})[name] = tensor
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": slots, "param_groups": whole["param_groups"]})
    return Progress(fields["step"], fields["best"], fields["history"], fields["losses"])
