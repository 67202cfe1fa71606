"""Losses between two BERTs' insides, in TinyBERT's form; every pair weighs alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.layerwise.recipe import LayerwiseRecipe
from training.layerwise.states import States
from training.recipe import RecipeError


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference of each pair's attention scores, [B].

    The mean is over heads and over the entries between real tokens; masked ones count for nothing,
    so that a pair's loss is the same in any company.

    Args:
        student: Scores before mask and softmax, [B, A, L, L].
        teacher: The same of the teacher's layer.
        mask: 1 where there is a token, [B, L].

    Source:
        TinyBERT, Jiao et al. 2020, arXiv:1909.10351, eq. 7.
    """
    real = mask[:, None, :, None] * mask[:, None, None, :]  # [B, 1, L, L]
    squared = (student.float() - teacher.float()).square() * real
    return squared.sum(dim=(1, 2, 3)) / (student.shape[1] * real.sum(dim=(1, 2, 3)))


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared difference of each pair's states, over its real tokens, [B].

    Args:
        student: States in the teacher's width, [B, L, H].
        teacher: The teacher's, [B, L, H].
        mask: 1 where there is a token, [B, L].

    Source:
        TinyBERT, eq. 8 (layers) and 9 (embeddings).
    """
    squared = (student.float() - teacher.float()).square() * mask[:, :, None]
    return squared.sum(dim=(1, 2)) / (student.shape[2] * mask.sum(dim=1))


def layer_losses(
    student: States, teacher: States, mask: Tensor, recipe: LayerwiseRecipe
) -> dict[str, Tensor]:
    """Return each pair's losses by name, weighted, [B] each; those with weight 0 are left out.

    Layers are averaged, so that a term's weight means the same for any depth.

    Args:
        student: In the teacher's widths.
        teacher: As it is.
        mask: 1 where there is a token, [B, L].
        recipe: The weights.
    """
    places = mapped_layers(len(teacher.hidden), len(student.hidden))
    losses = {}
    if recipe.attention:
        pairs = zip(student.attention, _at(teacher.attention, places), strict=True)
        found = [attention_mse(mine, theirs, mask) for mine, theirs in pairs]
        losses["attention"] = recipe.attention * torch.stack(found).mean(dim=0)
    if recipe.hidden:
        pairs = zip(student.hidden, _at(teacher.hidden, places), strict=True)
        found = [hidden_mse(mine, theirs, mask) for mine, theirs in pairs]
        losses["hidden"] = recipe.hidden * torch.stack(found).mean(dim=0)
    if recipe.embedding:
        found_one = hidden_mse(student.embeddings, teacher.embeddings, mask)
        losses["embedding"] = recipe.embedding * found_one
    if recipe.score:
        gap = student.scores.float() - teacher.scores.float()
        losses["score"] = recipe.score * gap.square()
    return losses


def mapped_layers(teacher: int, student: int) -> tuple[int, ...]:
    """Return the teacher's layer, from 0, for each of the student's: the last of each stretch.

    12 → 6 is (1, 3, 5, 7, 9, 11), 6 → 3 is (1, 3, 5).

    Raises:
        RecipeError: The student's number of layers does not divide the teacher's.

    Source:
        TinyBERT: g(m) = m · N / M, layers counted from 1.
    """
    if teacher % student:
        raise RecipeError(f"{student} layers cannot learn evenly from {teacher}")
    stretch = teacher // student
    return tuple(range(stretch - 1, teacher, stretch))


def _at(layers: Sequence[Tensor], places: Sequence[int]) -> list[Tensor]:
    return [layers[place] for place in places]
