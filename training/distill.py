"""Distillation: teachers' scores into a 6-layer BERT (DisRanker section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from service.contract.encoding import PairEncoder, TokenPair
from service.contract.manifest import ScoreMeaning
from training.loop import Part, start_accelerator
from training.losses import group_mean, student_loss
from training.recipe import DistillRecipe
from training.rradistill.term_control import TermControlled, excluded_ids, score_with_terms
from training.student import score_pairs
from training.student_run import Pupil, Teaching, ranking_figures, train_student
from training.taught import Group, Lessons, read_taught


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
    accelerator = start_accelerator(recipe.precision)
    pupil = Pupil.load(recipe, data)
    queries, teachers = read_taught(recipe, data, pupil.encoder)
    lessons = Lessons(queries, recipe)
    teaching = Teaching(
        trained=_trained(recipe, pupil),
        parts=lambda step: step_parts(step, lessons, pupil.encoder, recipe, accelerator),
        steps=lessons.steps_per_epoch * recipe.epochs,
        inputs=(array.tobytes() for array in lessons.arrays()),
        score=ScoreMeaning(teachers=teachers),
        figures=ranking_figures(recipe, pupil.validation),
    )
    return train_student(
        recipe,
        pupil,
        teaching,
        accelerator=accelerator,
        folder=out / recipe.name,
        restart=restart,
        tensorboard=tensorboard,
    )


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
        scores = _scores(model, pairs, recipe)
    losses = []
    start = 0
    for group in groups:
        teacher = torch.from_numpy(group.query.teacher[group.places])  # [G]
        parts = [
            weight
            * student_loss(
                recipe.loss,
                column[start : start + len(teacher)],
                teacher.to(column.device),
                beta=recipe.beta,
                tau=recipe.tau,
            )
            for weight, column in scores
        ]
        losses.append(torch.stack(parts).sum())
        start += len(teacher)
    return group_mean(losses)


def _scores(
    model: nn.Module, pairs: list[TokenPair], recipe: DistillRecipe
) -> list[tuple[float, Tensor]]:
    """Return the scores that learn, [N] each, with the weights of their losses."""
    if recipe.term_control is None:
        return [(1.0, score_pairs(model, pairs, rows=recipe.rows_per_call))]
    scores, terms = score_with_terms(model, pairs, rows=recipe.rows_per_call)
    return [(1.0, scores), (recipe.term_control.weight, terms)]


def _trained(recipe: DistillRecipe, pupil: Pupil) -> nn.Module:
    if recipe.term_control is None:
        return pupil.model
    return TermControlled(pupil.model, excluded_ids(pupil.tokenizer))
