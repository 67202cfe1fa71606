"""Distillation: teachers' scores into a 6-layer BERT (DisRanker section 3.4)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertForSequenceClassification

from service.contract.bundle import Relevance, ScoreMeaning
from service.contract.checkpoint import Card
from service.contract.encoding import PairEncoder
from service.contract.folder import restore_folder
from service.contract.types import RankingExample
from training.checkpoint import write_checkpoint
from training.evaluate import fit_relevance
from training.loop import train
from training.losses import group_mean, hybrid
from training.recipe import DistillRecipe
from training.student import build_student, pair_encoder, score_pairs
from training.taught import Group, Lessons, read_taught
from training.validation import Scored, Validation

CHECKPOINT = "checkpoint"


def distill(recipe: DistillRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Train a student by the recipe and return its checkpoint's folder.

    The run lives in `out/<recipe name>`; a run that was stopped goes on from its last state.

    Args:
        recipe: What to train on what.
        data: Folder of the judged sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier run of this name away.

    Raises:
        RecipeError: The recipe or an input cannot be used, or the folder holds another run.
    """
    folder = out / recipe.name
    accelerator = Accelerator(mixed_precision=recipe.precision)
    model, tokenizer = build_student(recipe.student, seed=recipe.seed)
    encoder = pair_encoder(tokenizer, recipe.student)
    queries, teachers = read_taught(recipe, data, encoder)
    lessons = Lessons(queries, recipe)
    validation = [Validation.read(source, data, encoder) for source in recipe.validation]
    held_out = [example for part in validation for example in part.examples]
    card = Card(
        max_length=recipe.student.max_length,
        max_query_length=recipe.student.max_query_length,
        score=ScoreMeaning(teachers=teachers),
        recipe=recipe.model_dump(mode="json"),
    )

    def step_loss(student: nn.Module, step: int) -> Tensor:
        groups = lessons.step(step)
        mine = groups[accelerator.process_index :: accelerator.num_processes] or groups[:1]
        return _group_loss(student, mine, encoder, recipe)

    def figures(student: nn.Module) -> dict[str, float]:
        found = {}
        for part in validation:
            scored = part.score(student, rows=recipe.rows_per_call)
            found[part.name] = part.evaluate(
                scored, relevant_from=recipe.relevant_from
            ).ndcg_at_10.value
        return {**found, "ndcg_at_10": float(np.mean(list(found.values())))}

    def write(student: BertForSequenceClassification, final: Card) -> None:
        write_checkpoint(folder / CHECKPOINT, student, tokenizer, final, held_out)

    def keep(student: nn.Module, row: dict[str, Any]) -> None:
        assert isinstance(student, BertForSequenceClassification)  # noqa: S101 - for the type only
        write(student, card.model_copy(update={"metrics": {"selected_at": row}}))

    fingerprint = _fingerprint(recipe, lessons, held_out)
    if restart and accelerator.is_main_process:  # all inputs were read: none can fail any more
        shutil.rmtree(folder, ignore_errors=True)
    accelerator.wait_for_everyone()
    restore_folder(folder / CHECKPOINT)
    progress = train(
        model,
        accelerator=accelerator,
        folder=folder,
        fingerprint=fingerprint,
        settings=recipe.optimiser,
        steps=lessons.steps_per_epoch * recipe.epochs,
        seed=recipe.seed,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        step_loss=step_loss,
        evaluate=figures,
        figure="ndcg_at_10",
        keep=keep,
    )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        # Scores are served in fp32 and below, so they are judged without training's autocast.
        best = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        best.load_state_dict(load_file(folder / CHECKPOINT / "model.safetensors"))
        history = {"steps": progress.step, "history": progress.history}
        write(best, _final_card(card, best, recipe, validation, history))
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


def _final_card(
    card: Card,
    model: nn.Module,
    recipe: DistillRecipe,
    validation: Sequence[Validation],
    history: dict[str, Any],
) -> Card:
    """Return the card with the best checkpoint's calibration, its figures and the run's history."""
    model.train(False)
    with torch.no_grad():
        scored = [part.score(model, rows=recipe.rows_per_call) for part in validation]
    found = {
        part.name: part.evaluate(scores, relevant_from=recipe.relevant_from)
        for part, scores in zip(validation, scored, strict=True)
    }
    for name, figures in found.items():
        tqdm.write(
            f"{name}: nDCG@10 {figures.ndcg_at_10}  MRR@10 {figures.mrr_at_10}  PNR {figures.pnr}"
        )
    scale, offset = _calibrate(validation, scored, relevant_from=recipe.relevant_from)
    score = card.score.model_copy(update={"relevance": Relevance(scale=scale, offset=offset)})
    metrics = {"validation": {name: figures.as_dict() for name, figures in found.items()}}
    return card.model_copy(update={"score": score, "metrics": {**metrics, **history}})


def _calibrate(
    validation: Sequence[Validation], scored: Sequence[Scored], *, relevant_from: float
) -> tuple[float, float]:
    """Fit Platt's scaling on the validation queries, which the student was not taught."""
    scores: list[float] = []
    relevant: list[bool] = []
    for part, found in zip(validation, scored, strict=True):
        for example in part.examples:
            scores.extend(found[example.query_id])
            relevant.extend(grade >= relevant_from for grade in example.grades or ())
    return fit_relevance(scores, relevant)


def _group_loss(
    model: nn.Module, groups: Sequence[Group], encoder: PairEncoder, recipe: DistillRecipe
) -> Tensor:
    pairs = [
        encoder.splice(group.query.query_ids, group.query.document_ids[place])
        for group in groups
        for place in group.places
    ]
    scores = score_pairs(model, pairs, rows=recipe.rows_per_call)  # [N]
    losses = []
    start = 0
    for group in groups:
        teacher = torch.from_numpy(group.query.teacher[group.places]).to(scores.device)  # [G]
        student = scores[start : start + len(teacher)]  # [G]
        losses.append(hybrid(student, teacher, beta=recipe.beta))
        start += len(teacher)
    return group_mean(losses)


def _fingerprint(
    recipe: DistillRecipe, lessons: Lessons, held_out: Sequence[RankingExample]
) -> str:
    """Return a hash of the recipe and of all that it trains on and chooses by."""
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for array in lessons.arrays():
        digest.update(array.tobytes())
    digest.update(repr(held_out).encode())
    return digest.hexdigest()
