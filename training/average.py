"""Weight averaging: students of one origin, each good at something, become one student."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.contract.checkpoint import Card, read_card
from service.contract.encoding import PairEncoder
from service.contract.folder import restore_folder
from service.contract.manifest import ScoreMeaning, TeacherScale
from training.checkpoint import write_checkpoint
from training.recipe import AverageRecipe, RecipeError
from training.student import LOAD_ERRORS, score_pairs
from training.validation import Validation, final_card

CHECKPOINT = "checkpoint"
ROWS = 16


def average(recipe: AverageRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Write the weighted mean of checkpoints to `out/<recipe name>/checkpoint` and return it.

    It is calibrated and judged anew on the validation sets. One that is there is left as it is.

    Args:
        recipe: The checkpoints and their weights.
        data: Folder of the judged sets the recipe names.
        out: Folder of runs.
        restart: Make it anew.

    Raises:
        RecipeError: A checkpoint or set cannot be read, two checkpoints do not fit together, or the
            folder holds another mean.

    Source:
        Wortsman et al. 2022, arXiv:2109.01903 (WiSE-FT) and arXiv:2203.05482 (model soups): between
        a model and its fine-tuned self the weights' mean keeps much of what either one knows.
    """
    target = out / recipe.name / CHECKPOINT
    restore_folder(target)
    made = recipe.model_dump(mode="json")
    if target.exists() and not restart:
        if _card(target).recipe != made:
            raise RecipeError(
                f"{target} holds another mean; "
                "give the recipe a new name, or start over with --restart"
            )
        return target
    folders = [part.path for part in recipe.checkpoints]
    cards = [_card(folder) for folder in folders]
    shapes = {(card.template, card.max_length, card.max_query_length) for card in cards}
    if len(shapes) > 1:
        raise RecipeError(f"checkpoints of different templates or lengths: {sorted(shapes)}")
    weights = _mean(folders, [part.weight for part in recipe.checkpoints])
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folders[0])
        tokenizer = AutoTokenizer.from_pretrained(folders[0])  # type: ignore[no-untyped-call]
    except LOAD_ERRORS as error:
        raise RecipeError(f"{folders[0]} cannot be loaded: {error}") from error
    model.load_state_dict(weights)
    model.train(False)
    encoder = PairEncoder.from_file(
        folders[0] / "tokenizer.json",
        max_length=cards[0].max_length,
        max_query_length=cards[0].max_query_length,
    )
    validation = [Validation.read(source, data, encoder) for source in recipe.validation]
    card = cards[0].model_copy(
        update={
            "score": ScoreMeaning(teachers=_teachers(cards)),
            "recipe": made,
        }
    )
    final = final_card(
        card,
        validation,
        partial(score_pairs, model, rows=ROWS),
        relevant_from=recipe.relevant_from,
        history={"averaged": [card.recipe for card in cards]},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    held_out = [example for part in validation for example in part.examples]
    write_checkpoint(target, model, tokenizer, final, held_out)
    return target


def _mean(folders: list[Path], shares: list[float]) -> dict[str, Tensor]:
    total = sum(shares)
    mean: dict[str, Tensor] = {}
    for folder, share in zip(folders, shares, strict=True):
        try:
            weights = load_file(folder / "model.safetensors")
        except LOAD_ERRORS as error:
            raise RecipeError(f"{folder}: {error}") from None
        if not mean:
            mean = {
                name: torch.zeros_like(tensor, dtype=torch.float64)
                for name, tensor in weights.items()
            }
        if {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in mean.items()
        }:
            raise RecipeError(f"{folder} has other weights than {folders[0]}")
        for name, tensor in weights.items():
            mean[name] += tensor.double() * (share / total)
    return {name: tensor.float() for name, tensor in mean.items()}


def _teachers(cards: list[Card]) -> dict[str, TeacherScale]:
    """Return the scale of each teacher; of two by one name, the first checkpoint's."""
    return {name: scale for card in reversed(cards) for name, scale in card.score.teachers.items()}


def _card(folder: Path) -> Card:
    if not (folder / "model.safetensors").exists():
        raise RecipeError(f"{folder} is no checkpoint: there is no model.safetensors")
    try:
        return read_card(folder)
    except ValueError as error:
        raise RecipeError(str(error)) from None
