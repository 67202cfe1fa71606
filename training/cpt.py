"""Continued pre-training: a decoder learns to write what was clicked (DisRanker section 3.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.folder import replaced_folder, restore_folder
from training.click_feed import ClickRows, Counts, encode_clicks
from training.clicks import open_clicks
from training.decoder import build_language_model, plain
from training.hashing import fingerprint
from training.loop import Part, share, start_accelerator, train
from training.losses import target_cross_entropy
from training.packing import Row, batch, pack, targets
from training.recipe import RecipeError
from training.state import keep_best, load_best
from training.teacher_recipes import CptRecipe

CHECKPOINT = "checkpoint"
REPORT = "cpt.json"


def cpt(
    recipe: CptRecipe,
    *,
    data: Path,
    out: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a causal language model on clicks and return its checkpoint's folder.

    The sequence is the scorer's, `<s> query : title : summary </s>`; what follows `<s> query :` is
    learnt. The run lives in `out/<recipe name>`; one that was stopped goes on from its last state.

    Args:
        recipe: What to train on what.
        data: Folder of the files or judged sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier run of this name away.
        tensorboard: Write logs for TensorBoard to the run's `logs`.

    Raises:
        RecipeError: The recipe or an input cannot be used, or the folder holds another run.
    """
    folder = out / recipe.name
    accelerator = start_accelerator(recipe.precision)
    shards = open_clicks(recipe.train, data)
    model, _, encoder = build_language_model(
        recipe.model, precision=recipe.precision, seed=recipe.seed
    )
    clicks = ClickRows(
        shards,
        encoder,
        seed=recipe.seed,
        block_rows=recipe.block_rows,
        row_tokens=recipe.row_tokens,
    )
    held_out = _held_out(recipe, data, encoder)

    def figures(language_model: nn.Module) -> dict[str, float]:
        found = [
            _summed_loss(language_model, held_out[start : start + recipe.rows_per_call], recipe)
            for start in range(0, len(held_out), recipe.rows_per_call)
        ]
        loss = float(torch.stack(found).sum()) / sum(map(targets, held_out))
        return {"held_out_loss": loss, "log_likelihood": -loss}

    progress = train(
        model,
        accelerator=accelerator,
        folder=folder,
        fingerprint=fingerprint(
            recipe, recipe.model.base, (shard.identity.encode() for shard in shards)
        ),
        settings=recipe.optimiser,
        steps=recipe.steps,
        seed=recipe.seed,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        feed=ClickFeed(clicks, recipe, accelerator),
        evaluate=figures,
        figure="log_likelihood",
        keep=lambda weights, _: keep_best(folder, weights),
        restart=restart,
        tensorboard=tensorboard,
    )
    accelerator.free_memory()
    del model
    if accelerator.is_main_process:
        tqdm.write(report(clicks.counts))
        facts = {
            "recipe": recipe.model_dump(mode="json"),
            "read": asdict(clicks.counts),
            "steps": progress.step,
            "history": progress.history,
        }
        _write(folder, recipe, facts)
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


class ClickFeed:
    """Feeds packed rows to the loop; every process reads them all and takes its share."""

    def __init__(self, clicks: ClickRows, recipe: CptRecipe, accelerator: Accelerator) -> None:
        self._clicks = clicks
        self._recipe = recipe
        self._accelerator = accelerator

    def parts(self, step: int) -> list[Part]:  # noqa: ARG002 - the position says it
        """Return this process's micro-batches; losses are shares of the mean over all targets."""
        rows = self._clicks.take(self._recipe.rows_per_step)
        total = sum(map(targets, rows))
        mine = share(rows, self._accelerator, filler=[])
        size = self._recipe.rows_per_call
        chunks = [mine[start : start + size] for start in range(0, len(mine), size)]
        return [self._part(chunk, total) for chunk in chunks]

    def position(self) -> dict[str, Any]:
        """Return where the next row is."""
        return self._clicks.position()

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position that was returned before."""
        self._clicks.seek(position)

    def _part(self, rows: Sequence[Row], total: int) -> Part:
        return lambda model: _summed_loss(model, rows, self._recipe) / total


def report(counts: Counts) -> str:
    """Return what was read as a line."""
    used = counts.tokens / max(counts.packed_tokens, 1)
    return (
        f"rows {counts.rows}: {counts.empty} empty and {counts.duplicates} duplicate left out, "
        f"{counts.overlong} overlong cut; tokens {counts.tokens}, {used:.1%} of the packed rows"
    )


def _summed_loss(model: nn.Module, rows: Sequence[Row], recipe: CptRecipe) -> Tensor:
    device = next(model.parameters()).device
    inputs = {
        name: tensor.to(device) for name, tensor in batch(rows, recipe.row_tokens).items()
    }  # [B, L] each
    labels = inputs.pop("labels")
    return target_cross_entropy(model(**inputs, use_cache=False).logits, labels)


def _held_out(recipe: CptRecipe, data: Path, encoder: DecoderPairEncoder) -> list[Row]:
    shards = open_clicks(recipe.validation, data)
    clicks = chain.from_iterable(shard.rows(0) for shard in shards)
    pairs = encode_clicks(islice(clicks, recipe.validation_rows), encoder, Counts())
    if not pairs:
        raise RecipeError("the validation source has no usable row")
    return pack(pairs, recipe.row_tokens)


def _write(folder: Path, recipe: CptRecipe, facts: dict[str, Any]) -> None:
    """Write the best weights as a plain Hugging Face folder."""
    model, tokenizer, _ = build_language_model(
        recipe.model, precision=recipe.precision, seed=recipe.seed
    )
    load_best(folder, model)
    restore_folder(folder / CHECKPOINT)
    with replaced_folder(folder / CHECKPOINT) as scratch:
        plain(model, recipe.model).save_pretrained(scratch, safe_serialization=True)
        tokenizer.save_pretrained(scratch)
        (scratch / REPORT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
