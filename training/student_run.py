"""A student's run, however it is taught: the loop, the best checkpoint and its card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from safetensors.torch import load_file, save
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from service.contract.checkpoint import Card
from service.contract.encoding import PairEncoder
from service.contract.folder import restore_folder
from service.contract.manifest import ScoreMeaning
from training.checkpoint import Weights, write_checkpoint
from training.hashing import fingerprint
from training.loop import ByStep, Part, train
from training.recipe import StudentRecipe
from training.shards import write_whole
from training.student import build_student, pair_encoder, score_pairs
from training.validation import ScorePairs, Validation, final_card, mean_ndcg

CHECKPOINT = "checkpoint"
APART = "training-only.safetensors"
"""Weights that a student is trained with and served without, beside its checkpoint."""

STUDENT = "student."
"""Begins the names of a student's weights inside a module that has others, too."""

Figures = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Pupil:
    """A student before its training, with what it is judged on."""

    model: BertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase
    encoder: PairEncoder
    validation: tuple[Validation, ...]

    @classmethod
    def load(
        cls, recipe: StudentRecipe, data: Path, *, attention: Literal["sdpa", "eager"] = "sdpa"
    ) -> Pupil:
        """Return the student of a recipe.

        Raises:
            RecipeError: Its base or a validation set cannot be used.
        """
        model, tokenizer = build_student(recipe.student, seed=recipe.seed, attention=attention)
        encoder = pair_encoder(tokenizer, recipe.student)
        validation = tuple(Validation.read(part, data, encoder) for part in recipe.validation)
        return cls(model, tokenizer, encoder, validation)


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a student is taught.

    Attributes:
        trained: What the loop trains: the student, or a module that holds it as `student` and
            answers its calls as it does.
        parts: The micro-batches of a step.
        steps: Optimiser steps.
        inputs: All that is learnt, for a fingerprint.
        score: What the scores will mean.
        figures: Of an evaluation.
        figure: The one to maximise.
        ranks: Whether it will rank after that: else its scores are neither judged nor calibrated.
    """

    trained: nn.Module
    parts: Callable[[int], Sequence[Part]]
    steps: int
    inputs: Iterable[bytes]
    score: ScoreMeaning
    figures: Figures
    figure: str = "ndcg_at_10"
    ranks: bool = True


def ranking_figures(recipe: StudentRecipe, validation: Sequence[Validation]) -> Figures:
    """Return the evaluation of a student that ranks: nDCG@10 of each set, and their mean."""
    return lambda model: mean_ndcg(
        validation, _scorer(model, recipe), relevant_from=recipe.relevant_from
    )


def train_student(
    recipe: StudentRecipe,
    pupil: Pupil,
    teaching: Teaching,
    *,
    accelerator: Accelerator,
    folder: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a student and return its checkpoint's folder.

    A run that was stopped goes on from its last state. The checkpoint holds the student alone;
    weights that were trained beside it lie in the run's folder.

    Args:
        recipe: What the student is told.
        pupil: The student.
        teaching: How it is taught.
        accelerator: Of the stage.
        folder: The run's folder.
        restart: Throw an earlier run away.
        tensorboard: Write logs for TensorBoard to the run's `logs`.

    Raises:
        RecipeError: The folder holds another run, or training diverges.
    """
    held_out = [example for part in pupil.validation for example in part.examples]
    card = Card(
        max_length=recipe.student.max_length,
        max_query_length=recipe.student.max_query_length,
        score=teaching.score,
        recipe=recipe.model_dump(mode="json"),
    )

    def write(weights: Weights | None, final: Card) -> None:
        write_checkpoint(
            folder / CHECKPOINT, pupil.model, pupil.tokenizer, final, held_out, weights=weights
        )

    def keep(weights: Weights, row: dict[str, Any]) -> None:
        own, apart = _divided(weights, inside=teaching.trained is not pupil.model)
        # Frozen weights are the model's own still.
        write({**pupil.model.state_dict(), **own}, _with(card, {"selected_at": row}))
        if apart:
            write_whole(folder / APART, save(apart))

    restore_folder(folder / CHECKPOINT)
    progress = train(
        teaching.trained,
        accelerator=accelerator,
        folder=folder,
        fingerprint=fingerprint(
            recipe, recipe.student.base, chain(teaching.inputs, [repr(held_out).encode()])
        ),
        settings=recipe.optimiser,
        steps=teaching.steps,
        seed=recipe.seed,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        feed=ByStep(teaching.parts),
        evaluate=teaching.figures,
        figure=teaching.figure,
        keep=keep,
        restart=restart,
        tensorboard=tensorboard,
    )
    if accelerator.is_main_process:
        # Scores are served in fp32 and below, so they are judged without training's autocast.
        accelerator.unwrap_model(teaching.trained, keep_fp32_wrapper=False)
        best = pupil.model
        best.load_state_dict(load_file(folder / CHECKPOINT / "model.safetensors"))
        history = {"steps": progress.step, "history": progress.history}
        best.train(False)
        final = (
            final_card(
                card,
                pupil.validation,
                _scorer(best, recipe),
                relevant_from=recipe.relevant_from,
                history=history,
            )
            if teaching.ranks
            else _with(card, history)
        )
        write(None, final)
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


def _scorer(model: nn.Module, recipe: StudentRecipe) -> ScorePairs:
    return partial(score_pairs, model, rows=recipe.rows_per_call)


def _with(card: Card, metrics: dict[str, Any]) -> Card:
    return card.model_copy(update={"metrics": metrics})


def _divided(weights: Weights, *, inside: bool) -> tuple[Weights, Weights]:
    """Return the student's own weights, and those beside it."""
    if not inside:
        return weights, {}
    own = {name: weight for name, weight in weights.items() if name.startswith(STUDENT)}
    apart = {name: weight for name, weight in weights.items() if name not in own}
    return {name.removeprefix(STUDENT): weight for name, weight in own.items()}, apart
