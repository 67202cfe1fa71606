"""Layer-wise distillation: a BERT's insides into a shallower one (Gao, Dai and Callan 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from service.contract.checkpoint import read_card
from service.contract.encoding import PairEncoder, TokenPair
from service.contract.manifest import ScoreMeaning
from training.data import open_source
from training.hashing import model_digest
from training.layerwise.losses import layer_losses, mapped_layers
from training.layerwise.projected import Projected
from training.layerwise.recipe import LayerwiseRecipe
from training.layerwise.states import states_of
from training.loop import Part, share, start_accelerator
from training.recipe import RecipeError, Student
from training.student import build_student, by_length, padded
from training.student_run import Figures, Pupil, Teaching, ranking_figures, train_student
from training.taught import DocumentIds, Lessons, TaughtQuery


def layerwise(
    recipe: LayerwiseRecipe,
    *,
    data: Path,
    out: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a student on its teacher's layers and return its checkpoint's folder.

    The run lives in `out/<recipe name>`; a run that was stopped goes on from its last state.

    Args:
        recipe: Which student, which teacher, which pairs.
        data: Folder of the sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier run of this name away.
        tensorboard: Write logs for TensorBoard to the run's `logs`.

    Raises:
        RecipeError: The recipe or an input cannot be used, student and teacher do not fit, or the
            folder holds another run.
    """
    accelerator = start_accelerator(recipe.precision)
    pupil = Pupil.load(recipe, data, attention="eager")
    teacher, tokenizer = load_teacher(recipe)
    require_fit(recipe, pupil, teacher, tokenizer)
    for name in untaught(recipe, pupil.model.config.num_hidden_layers):
        pupil.model.get_submodule(name).requires_grad_(False)
    teacher = accelerator.prepare_model(teacher, evaluation_mode=True)
    lessons = Lessons(read_pairs(recipe, data, pupil.encoder), recipe)
    teaching = Teaching(
        trained=Projected(pupil.model, width=teacher.config.hidden_size, recipe=recipe),
        parts=lambda step: step_parts(step, lessons, pupil.encoder, teacher, recipe, accelerator),
        steps=lessons.steps_per_epoch * recipe.epochs,
        inputs=_inputs(recipe, lessons),
        score=ScoreMeaning(teachers=read_card(Path(recipe.teacher)).score.teachers),
        figures=_figures(recipe, pupil, teacher),
        figure="ndcg_at_10" if recipe.score else "likeness",
        ranks=recipe.score > 0,
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


def load_teacher(
    recipe: LayerwiseRecipe,
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase]:
    """Return the frozen teacher in evaluation mode, and its tokenizer.

    Raises:
        RecipeError: It is no BERT, or no ranker where its score is to be learnt.
    """
    spec = Student(
        base=recipe.teacher,
        max_length=recipe.student.max_length,
        max_query_length=recipe.student.max_query_length,
    )
    model, tokenizer = build_student(spec, seed=recipe.seed, attention="eager")
    kinds = model.config.architectures or ["a BERT without a head"]
    if recipe.score and "BertForSequenceClassification" not in kinds:
        raise RecipeError(
            f"teacher {recipe.teacher!r} is {kinds[0]}, which has no score; take a ranker's "
            "checkpoint, or score = 0"
        )
    return model.requires_grad_(False).train(False), tokenizer


def require_fit(
    recipe: LayerwiseRecipe,
    pupil: Pupil,
    teacher: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse a student that cannot be compared with its teacher.

    Raises:
        RecipeError: They have other vocabularies, depths that do not divide, or other numbers of
            attention heads where attention is learnt.
    """
    mapped_layers(teacher.config.num_hidden_layers, pupil.model.config.num_hidden_layers)
    if tokenizer.get_vocab() != pupil.tokenizer.get_vocab():
        raise RecipeError(f"teacher {recipe.teacher!r} has another vocabulary than the student")
    heads = pupil.model.config.num_attention_heads, teacher.config.num_attention_heads
    if recipe.attention and heads[0] != heads[1]:
        raise RecipeError(
            f"the student has {heads[0]} attention heads, its teacher {heads[1]}; set attention = 0"
        )


def untaught(recipe: LayerwiseRecipe, layers: int) -> list[str]:
    """Return the parts of a student of so many layers that no loss of the recipe reaches.

    They are frozen: several processes would wait for their gradients.
    """
    if recipe.score:
        return []
    head = ["bert.pooler", "classifier"]
    if recipe.hidden:
        return head
    if not recipe.attention:
        return [*head, "bert.encoder"]
    # Attention scores are made of query and key; in the last layer nothing else is learnt by.
    parts = ("attention.self.value", "attention.output", "intermediate", "output")
    return [*head, *(f"bert.encoder.layer.{layers - 1}.{part}" for part in parts)]


def read_pairs(recipe: LayerwiseRecipe, data: Path, encoder: PairEncoder) -> list[TaughtQuery]:
    """Return the queries with their candidates; grades and scores of the sources are not read.

    Raises:
        RecipeError: A source cannot be read.
    """
    return [
        TaughtQuery(
            encoder.encode_query(example.query),
            DocumentIds.of(encoder.encode_documents(example.candidates)),
            np.zeros(len(example.candidates), dtype=np.float32),
            repeat=1,
        )
        for source in recipe.train
        for example in open_source(source, data)
    ]


def step_parts(
    step: int,
    lessons: Lessons,
    encoder: PairEncoder,
    teacher: BertForSequenceClassification,
    recipe: LayerwiseRecipe,
    accelerator: Accelerator,
) -> list[Part]:
    """Return this process's micro-batches of a step; losses are shares of the mean over pairs."""
    pairs = [
        encoder.splice(group.query.query_ids, group.query.document_ids[place])
        for group in lessons.step(step)
        for place in group.places
    ]
    order = by_length(pairs)
    rows = recipe.rows_per_call
    chunks = [
        [pairs[place] for place in order[start : start + rows]]
        for start in range(0, len(order), rows)
    ]
    weighed = [(len(chunk) / len(pairs), chunk) for chunk in chunks]

    def part(weight: float, chunk: list[TokenPair]) -> Part:
        return lambda model: weight * pair_losses(model, teacher, chunk, recipe).mean()

    return [part(*mine) for mine in share(weighed, accelerator, filler=(0.0, chunks[0]))]


def pair_losses(
    model: nn.Module,
    teacher: BertForSequenceClassification,
    pairs: Sequence[TokenPair],
    recipe: LayerwiseRecipe,
) -> Tensor:
    """Return the weighted sum of each pair's losses, in one call of either model, [B].

    Args:
        model: A `Projected`.
        teacher: On the same device.
        pairs: At least one.
        recipe: The weights.
    """
    batch = padded(pairs, next(model.parameters()).device)
    with torch.no_grad():
        theirs = states_of(teacher, batch)
    mine = model(layers=True, **batch)
    losses = layer_losses(mine, theirs, batch["attention_mask"], recipe)
    return torch.stack([*losses.values()]).sum(dim=0)


def _figures(
    recipe: LayerwiseRecipe, pupil: Pupil, teacher: BertForSequenceClassification
) -> Figures:
    """Return the evaluation: the held-out pairs' mean loss, and nDCG@10 of what is to rank."""
    held_out = [
        pair for part in pupil.validation for pairs in part.pairs.values() for pair in pairs
    ]
    order = by_length(held_out)
    chunks = [
        [held_out[place] for place in order[start : start + recipe.rows_per_call]]
        for start in range(0, len(order), recipe.rows_per_call)
    ]
    ranking = ranking_figures(recipe, pupil.validation)

    def figures(model: nn.Module) -> dict[str, float]:
        losses = [pair_losses(model, teacher, rows, recipe) for rows in chunks]
        loss = float(torch.cat(losses).mean())
        return {
            "held_out_loss": loss,
            "likeness": -loss,
            **(ranking(model) if recipe.score else {}),
        }

    return figures


def _inputs(recipe: LayerwiseRecipe, lessons: Lessons) -> Iterator[bytes]:
    yield model_digest(recipe.teacher)
    yield from (array.tobytes() for array in lessons.arrays())
