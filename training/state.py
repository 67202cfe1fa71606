"""A run's state on disk: what is trained, its optimiser and how far it has come."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from service.contract.folder import replaced_folder, restore_folder
from training.recipe import RecipeError

BEST = "best"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
"""Gathered from all processes, on the first one's CPU; frozen weights (LoRA's base) left out."""


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        best: The best validation figure so far.
        history: One row per evaluation: step, mean training loss since the last one, figures.
        losses: Training losses since the last evaluation.
        position: Where the next step's data begins, as the stage's feed says it.
    """

    step: int = 0
    best: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    position: dict[str, Any] = field(default_factory=dict)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained weights by name, whole and on the CPU; empty but on the first process.

    Every process has to call it: a sharded model is gathered.
    """
    weights: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        found = tensor.detach().cpu().contiguous()
        # safetensors takes no two names for the same memory, as tied embeddings are.
        whole[name] = found.clone() if found.data_ptr() in seen else found
        seen.add(found.data_ptr())
    return whole


def keep_best(folder: Path, weights: dict[str, Tensor]) -> None:
    """Write the best trained weights so far, in one replacement."""
    with replaced_folder(folder / BEST) as scratch:
        save_file(weights, scratch / "model.safetensors")


def load_best(folder: Path, model: nn.Module) -> None:
    """Give a bare model, built as the trained one was, the best weights that were kept."""
    restore_folder(folder / BEST)
    weights = load_file(folder / BEST / "model.safetensors")
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise RecipeError(f"{folder / BEST} holds weights the model lacks: {', '.join(unknown)}")


def save_state(
    folder: Path,
    fingerprint: str,
    accelerator: Accelerator,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the state as safetensors and JSON, in one replacement; every process calls it."""
    weights = trained_weights(model)
    moments: Any = get_optimizer_state_dict(model, optimiser, options=WHOLE).get("state", {})
    if not accelerator.is_main_process:
        return
    flat = {
        f"{name}/{slot}": tensor.cpu().contiguous()
        for name, slots in moments.items()
        for slot, tensor in slots.items()
    }
    with replaced_folder(folder) as scratch:
        save_file(weights, scratch / "model.safetensors")
        save_file(flat, scratch / "optimiser.safetensors")
        fields = {"fingerprint": fingerprint, **asdict(progress)}
        (scratch / "state.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")


def load_state(
    folder: Path, fingerprint: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> Progress:
    """Restore the prepared model and optimiser from a state, if there is one.

    Raises:
        RecipeError: The state is another run's.
    """
    if not folder.exists():
        return Progress()
    fields = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if fields.pop("fingerprint") != fingerprint:
        raise RecipeError(
            f"{folder.parent} holds a run of another recipe, base or other data; "
            "give the recipe a new name, or start over with --restart"
        )
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    set_model_state_dict(model, weights, options=options)
    slots: dict[str, Any] = {}
    for key, tensor in load_file(folder / "optimiser.safetensors").items():
        name, slot = key.rsplit("/", 1)
        slots.setdefault(name, {})[slot] = tensor
    local = StateDictOptions(
        ignore_frozen_params=True
    )  # a gathered one is the first process's only
    fresh = get_optimizer_state_dict(model, optimiser, options=local)
    whole: dict[str, Any] = {"state": slots, "param_groups": fresh["param_groups"]}
    set_optimizer_state_dict(model, optimiser, whole, options=options)
    return Progress(**fields)
