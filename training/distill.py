"""Distillation: teachers' scores into a 6-layer BERT (DisRanker section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.contract.checkpoint import Card
from service.contract.encoding import PairEncoder
from service.contract.folder import restore_folder
from service.contract.manifest import ScoreMeaning
from training.checkpoint import Weights, write_checkpoint
from training.hashing import fingerprint
from training.loop import ByStep, Part, start_accelerator, train
from training.losses import group_mean, student_loss
from training.recipe import DistillRecipe
from training.student import build_student, pair_encoder, score_pairs
from training.taught import Group, Lessons, read_taught
from training.validation import ScorePairs, Validation, final_card, mean_ndcg

CHECKPOINT = "checkpoint"


def distill(
    recipe: DistillRecipe,
    *,
    data: Path,
    out: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a student by the recipe and return its checkpoint's folder.

    The run lives in `out/<recipe name>`; a run that was stopped goes on from its last state.

    Args:
        recipe: What to train on what.
        data: Folder of the judged sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier run of this name away.
        tensorboard: Write logs for TensorBoard to the run's `logs`.

    Raises:
        RecipeError: The recipe or an input cannot be used, or the folder holds another run.
    """
    folder = out / recipe.name
    accelerator = start_accelerator(recipe.precision)
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

    def scorer(student: nn.Module) -> ScorePairs:
        return partial(score_pairs, student, rows=recipe.rows_per_call)

    def figures(student: nn.Module) -> dict[str, float]:
        return mean_ndcg(validation, scorer(student), relevant_from=recipe.relevant_from)

    def write(weights: Weights | None, final: Card) -> None:
        write_checkpoint(folder / CHECKPOINT, model, tokenizer, final, held_out, weights=weights)

    def keep(weights: Weights, row: dict[str, Any]) -> None:
        # Frozen weights are the model's own still.
        whole = {**model.state_dict(), **weights}
        write(whole, card.model_copy(update={"metrics": {"selected_at": row}}))

    taught = (array.tobytes() for array in lessons.arrays())
    inputs = chain(taught, [repr(held_out).encode()])
    restore_folder(folder / CHECKPOINT)
    progress = train(
        model,
        accelerator=accelerator,
        folder=folder,
        fingerprint=fingerprint(recipe, recipe.student.base, inputs),
        settings=recipe.optimiser,
        steps=lessons.steps_per_epoch * recipe.epochs,
        seed=recipe.seed,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        feed=ByStep(lambda step: step_parts(step, lessons, encoder, recipe, accelerator)),
        evaluate=figures,
        figure="ndcg_at_10",
        keep=keep,
        restart=restart,
        tensorboard=tensorboard,
    )
    if accelerator.is_main_process:
        # Scores are served in fp32 and below, so they are judged without training's autocast.
        best = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        best.load_state_dict(load_file(folder / CHECKPOINT / "model.safetensors"))
        history = {"steps": progress.step, "history": progress.history}
        best.train(False)
        final = final_card(
            card, validation, scorer(best), relevant_from=recipe.relevant_from, history=history
        )
        write(None, final)
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


def step_parts(
    step: int,
    lessons: Lessons,
    encoder: PairEncoder,
    recipe: DistillRecipe,
    accelerator: Accelerator,
) -> list[Part]:
    """Return this process's one micro-batch of a step; its loss is a share of the groups' mean."""
    groups = lessons.step(step)
    mine = groups[accelerator.process_index :: accelerator.num_processes]
    weight = len(mine) / len(groups)
    return [lambda student: weight * _group_loss(student, mine or groups[:1], encoder, recipe)]


def _quick_backward(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention's backward takes 40 % of a step; plain products are cheaper."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _group_loss(
    model: nn.Module, groups: Sequence[Group], encoder: PairEncoder, recipe: DistillRecipe
) -> Tensor:
    pairs = [
        encoder.splice(group.query.query_ids, group.query.document_ids[place])
        for group in groups
        for place in group.places
    ]
    with _quick_backward(next(model.parameters()).device):
        scores = score_pairs(model, pairs, rows=recipe.rows_per_call)  # [N]
    losses = []
    start = 0
    for group in groups:
        teacher = torch.from_numpy(group.query.teacher[group.places]).to(scores.device)  # [G]
        student = scores[start : start + len(teacher)]  # [G]
        losses.append(student_loss(recipe.loss, student, teacher, beta=recipe.beta, tau=recipe.tau))
        start += len(teacher)
    return group_mean(losses)
