"""The training loop: one optimiser step after another, resumable after a kill at any moment."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from service.contract.folder import restore_folder
from training.recipe import Optimiser, RecipeError
from training.state import Progress, load_state, save_state, trained_weights

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STATE = "state"
LOGS = "logs"
HEADS = {"classifier", "score", "term_control", "projections"}
"""Parts that begin with random weights, and may learn faster."""

Part = Callable[[nn.Module], Tensor]
"""Runs a micro-batch and returns its share of the step's loss; shares of a step are summed."""

Item = TypeVar("Item")
Evaluate = Callable[[nn.Module], dict[str, float]]
Keep = Callable[[dict[str, Tensor], dict[str, Any]], None]


class Feed(Protocol):
    """What a stage feeds the loop with."""

    def parts(self, step: int) -> Sequence[Part]:
        """Return this process's micro-batches of a step, as many as every other process's."""
        ...

    def position(self) -> dict[str, Any]:
        """Return where the next step's data begins, as JSON; {} where the step says it all."""
        ...

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that was returned before."""
        ...


def start_accelerator(precision: str) -> Accelerator:
    """Return the accelerator of a stage; `accelerate launch` decides on devices and processes."""
    # accelerate would else refuse a later stage of this process with another precision.
    AcceleratorState._reset_state()
    # Buffers are constants here, and sending them between two forward calls would spoil a backward.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(mixed_precision=precision, kwargs_handlers=[parallel])


@dataclass(frozen=True, slots=True)
class ByStep:
    """The feed of a stage whose data is in memory: a function of the step's number alone."""

    parts: Callable[[int], Sequence[Part]]

    def position(self) -> dict[str, Any]:
        """Return {}: the step says it all."""
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        """Do nothing."""


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
    feed: Feed,
    evaluate: Evaluate,
    figure: str,
    keep: Keep,
    restart: bool = False,
    tensorboard: bool = False,
) -> Progress:
    """Train the model and return the run's progress; goes on where an earlier run stopped.

    All randomness of a step is drawn from (seed, step), so a resumed run repeats the
    uninterrupted one: same weights, same history, on the same hardware and thread count.

    Args:
        model: The student or teacher; its parameters that require a gradient are trained in place.
        accelerator: Chooses device, precision and processes.
        folder: The run's folder; its `state` is replaced every `save_every` steps.
        fingerprint: Of recipe and inputs; a state with another one is refused.
        settings: Optimiser and schedule.
        steps: Optimiser steps of the whole run.
        seed: Of dropout; each process adds its rank.
        save_every: Steps between states.
        evaluate_every: Steps between evaluations; the last step is always evaluated.
        feed: Gives the micro-batches of each step.
        evaluate: Validation figures of the model; every process calls it.
        figure: Name of the figure to maximise.
        keep: Called with the trained weights and the history row whenever the figure is the best.
        restart: Throw the folder away first; whoever calls has read all inputs by now.
        tensorboard: Write the folder's `logs`.

    Raises:
        RecipeError: The folder holds the state of another run, TensorBoard is missing, or a loss
            or gradient is not finite.
    """
    optimiser = _optimiser(model, settings)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    if accelerator.is_main_process:
        if restart:
            shutil.rmtree(folder, ignore_errors=True)
        restore_folder(folder / STATE)
    accelerator.wait_for_everyone()
    prepared, prepared_optimiser = accelerator.prepare(model, optimiser)
    progress = load_state(folder / STATE, fingerprint, prepared, optimiser)
    feed.seek(progress.position)
    logging = tensorboard and accelerator.is_main_process
    log = _log(folder / LOGS, progress.step) if logging else None
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
        factor = schedule(step, steps, settings.warmup)
        for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        prepared.train()
        loss = _accumulate(prepared, accelerator, feed.parts(step), step)
        norm = _clip(prepared, accelerator, settings.max_grad_norm)
        if not math.isfinite(norm):
            raise RecipeError(f"step {step}: the gradient is {norm}; lower the learning rate")
        prepared_optimiser.step()
        prepared_optimiser.zero_grad()
        progress.step += 1
        progress.losses.append(loss)
        progress.position = feed.position()
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}")
        _scalars(log, step, {"loss": loss, "gradient_norm": norm, "rate_factor": factor})
        evaluating = progress.step % evaluate_every == 0 or progress.step == steps
        if evaluating:
            _evaluate(prepared, accelerator, progress, evaluate, figure, keep)
            _scalars(log, step, {f"validation/{k}": v for k, v in progress.history[-1].items()})
        if evaluating or progress.step % save_every == 0:
            save_state(folder / STATE, fingerprint, accelerator, prepared, optimiser, progress)
    bar.close()
    if log is not None:
        log.close()
    accelerator.wait_for_everyone()
    return progress


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate: linear up over warmup · steps, then down to 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (steps - step) / max(steps - rising, 1.0))


def share(items: Sequence[Item], accelerator: Accelerator, *, filler: Item) -> list[Item]:
    """Return this process's items of a step, the filler where others have one more."""
    processes = accelerator.num_processes
    mine = list(items[accelerator.process_index :: processes])
    return mine + [filler] * (-(-len(items) // processes) - len(mine))


def _accumulate(
    model: nn.Module, accelerator: Accelerator, parts: Sequence[Part], step: int
) -> float:
    """Add the gradients of a step's parts up and return its loss, of all processes.

    Gradients are averaged over processes, while the parts' losses are shares of one sum: hence the
    factor.
    """
    # DDP exchanges gradients once a step. FSDP does at each part: else each process would hold all.
    waits = accelerator.distributed_type != DistributedType.FSDP
    total = 0.0
    for place, part in enumerate(parts):
        last = place + 1 == len(parts)
        with accelerator.no_sync(model) if waits and not last else nullcontext():
            loss = part(model)
            if not torch.isfinite(loss):
                value = loss.item()
                raise RecipeError(f"step {step}: the loss is {value}; lower the learning rate")
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.item()
    if accelerator.num_processes > 1:
        mine = torch.tensor(total, device=accelerator.device)
        total = float(accelerator.reduce(mine, reduction="sum"))
    return total


def _clip(model: nn.Module, accelerator: Accelerator, most: float) -> float:
    """Scale the gradients down to a norm of `most` and return the norm they had, of all shards."""
    norm = accelerator.clip_grad_norm_(model.parameters(), most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


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
        weights = trained_weights(model)
        if accelerator.is_main_process:
            keep(weights, row)


def _optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    head_rate = settings.head_learning_rate or settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = head_rate if HEADS & set(name.split(".")) else settings.learning_rate
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0  # none on biases and norms
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": part, "lr": rate, "weight_decay": decay}
            for (rate, decay), part in groups.items()
        ],
        fused=True,
    )


def _log(folder: Path, step: int) -> SummaryWriter:
    """Return a TensorBoard log; what a killed run wrote of later steps is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RecipeError(
            "tensorboard is not installed; it comes with the [training] extra"
        ) from None
    return SummaryWriter(str(folder), purge_step=step)


def _scalars(log: SummaryWriter | None, step: int, values: Mapping[str, float]) -> None:
    if log is not None:
        for name, value in values.items():
            log.add_scalar(name, value, step)
