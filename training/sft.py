"""Supervised fine-tuning: a decoder becomes a ranking teacher (DisRanker section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from service.contract.checkpoint import Card
from service.contract.encoding import TokenPair
from service.contract.folder import restore_folder
from training.baselines.scorers import WAYS, SplicingEncoder, Way
from training.checkpoint import write_checkpoint
from training.data import read_source
from training.decoder import plain
from training.hashing import fingerprint
from training.loop import ByStep, Part, share, start_accelerator, train
from training.losses import ordered_pairs, rank_loss, rank_units
from training.recipe import RecipeError
from training.state import keep_best, load_best
from training.taught import DocumentIds, Group, Lessons, TaughtQuery
from training.teacher_recipes import SftRecipe
from training.validation import ScorePairs, Validation, final_card, mean_ndcg

CHECKPOINT = "checkpoint"

BatchScorer = Callable[[nn.Module, list[TokenPair]], Tensor]
"""Returns a model's scores of token pairs, in one forward call, [N]."""


Drawn = Sequence[tuple[Group, Tensor]]
"""Groups, each with the (better, worse) pairs that it is learnt by, [P, 2]."""

StepLoss = Callable[[nn.Module, Drawn, Drawn], Tensor]
"""Of a model, the groups of a forward call and those of the whole step: the call's share."""


def sft(
    recipe: SftRecipe,
    *,
    data: Path,
    out: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a scorer on grades and return its checkpoint's folder.

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
    way = WAYS[recipe.scorer]
    run = Run(recipe, data, out / recipe.name, restart, tensorboard)

    def loss(encoder: SplicingEncoder, scorer: BatchScorer) -> StepLoss:
        return lambda model, call, step: (
            rank_sum(call, scorer(model, spliced(call, encoder)), recipe) / units(step, recipe)
        )

    return train_scorer(run, way, partial(read_graded, recipe, data), loss)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is told: `folder` is its own, the rest as of `sft`."""

    recipe: SftRecipe
    data: Path
    folder: Path
    restart: bool
    tensorboard: bool


def train_scorer(
    run: Run,
    way: Way,
    read: Callable[[Any], list[TaughtQuery]],
    loss: Callable[[SplicingEncoder, BatchScorer], StepLoss],
) -> Path:
    """Train a decoder that scores in this way and return its checkpoint's folder.

    Args:
        run: The recipe, and where it runs.
        way: How the decoder scores.
        read: Returns the queries that are taught, encoded by the decoder's encoder.
        loss: Returns the loss of a step's part.

    Raises:
        RecipeError: The recipe or an input cannot be used, or the folder holds another run.
    """
    recipe, folder = run.recipe, run.folder
    accelerator = start_accelerator(recipe.precision)
    model, tokenizer, encoder = way.build(
        recipe.model, precision=recipe.precision, seed=recipe.seed
    )
    rows = recipe.group_size * recipe.groups_per_call
    lessons = Lessons(read(encoder), recipe)
    validation = [Validation.read(source, run.data, encoder) for source in recipe.validation]
    held_out = [example for part in validation for example in part.examples]

    def scorer(teacher: nn.Module) -> ScorePairs:
        return way.scorer(teacher, tokenizer, rows)

    def figures(teacher: nn.Module) -> dict[str, float]:
        return mean_ndcg(validation, scorer(teacher), relevant_from=recipe.relevant_from)

    step_loss = loss(encoder, lambda teacher, pairs: scorer(teacher)(pairs))

    def parts(step: int) -> list[Part]:
        return step_parts(step, lessons, recipe, accelerator, step_loss)

    taught = (array.tobytes() for array in lessons.arrays())
    inputs = chain(taught, [repr(held_out).encode()])
    progress = train(
        model,
        accelerator=accelerator,
        folder=folder,
        fingerprint=fingerprint(recipe, recipe.model.base, inputs),
        settings=recipe.optimiser,
        steps=lessons.steps_per_epoch * recipe.epochs,
        seed=recipe.seed,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        feed=ByStep(parts),
        evaluate=figures,
        figure="ndcg_at_10",
        keep=lambda weights, _: keep_best(folder, weights),
        restart=run.restart,
        tensorboard=run.tensorboard,
    )
    accelerator.free_memory()
    del model
    if accelerator.is_main_process:
        # Built anew: the trained one may be sharded, and scores under training's autocast.
        best, _, _ = way.build(recipe.model, precision=recipe.precision, seed=recipe.seed)
        load_best(folder, best)
        teacher = plain(way.bare(best), recipe.model).to(accelerator.device)
        teacher.train(False)
        card = final_card(
            Card(
                template=way.template,
                max_length=recipe.model.max_length,
                max_query_length=recipe.model.max_query_length,
                recipe=recipe.model_dump(mode="json"),
            ),
            validation,
            scorer(teacher),
            relevant_from=recipe.relevant_from,
            history={"steps": progress.step, "history": progress.history},
        )
        restore_folder(folder / CHECKPOINT)
        write_checkpoint(folder / CHECKPOINT, teacher, tokenizer, card, held_out)
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


def read_graded(recipe: SftRecipe, data: Path, encoder: SplicingEncoder) -> list[TaughtQuery]:
    """Return the training queries that have two grades at least; tells how many have not.

    Raises:
        RecipeError: A source cannot be read or has no grades, or no query has two.
    """
    queries, alike = [], 0
    for source in recipe.train:
        for example in read_source(source, data):
            if example.grades is None:
                raise RecipeError(f"{source.path}: query {example.query_id!r} has no grades")
            if len(set(example.grades)) < 2:
                alike += 1
                continue
            grades = np.array(example.grades, dtype=np.float32)
            documents = DocumentIds.of(encoder.encode_documents(example.candidates))
            queries.append(TaughtQuery(encoder.encode_query(example.query), documents, grades, 1))
    if alike:
        tqdm.write(f"{alike} of {alike + len(queries)} queries have no two grades: left out")
    if not queries:
        raise RecipeError("no training query has two grades")
    return queries


def step_parts(
    step: int, lessons: Lessons, recipe: SftRecipe, accelerator: Accelerator, loss: StepLoss
) -> list[Part]:
    """Return this process's micro-batches of a step; losses are shares of the whole step's."""
    groups = lessons.step(step)
    drawn = [
        (group, draw_pairs(group, np.random.default_rng([recipe.seed, step, place]), recipe))
        for place, group in enumerate(groups)
    ]
    alone = Group(groups[0].query, groups[0].places[:1])  # a candidate alone makes no pair
    mine = share(drawn, accelerator, filler=(alone, torch.empty(0, 2, dtype=torch.int64)))
    size = recipe.groups_per_call

    def part(chunk: Drawn) -> Part:
        return lambda model: loss(model, chunk, drawn)

    return [part(mine[start : start + size]) for start in range(0, len(mine), size)]


def draw_pairs(group: Group, rng: np.random.Generator, recipe: SftRecipe) -> Tensor:
    """Return the group's (better, worse) pairs by grade, at most the recipe's number, [P, 2]."""
    pairs = ordered_pairs(torch.from_numpy(group.query.teacher[group.places]))
    if len(pairs) <= recipe.pairs_per_group:
        return pairs
    return pairs[rng.choice(len(pairs), recipe.pairs_per_group, replace=False)]


def spliced(drawn: Drawn, encoder: SplicingEncoder) -> list[TokenPair]:
    """Return the pairs of query and document of some groups, one group after another."""
    return [
        encoder.splice(group.query.query_ids, group.query.document_ids[place])
        for group, _ in drawn
        for place in group.places
    ]


def rank_sum(drawn: Drawn, scores: Tensor, recipe: SftRecipe) -> Tensor:
    """Return the summed ranking loss of some groups, whose scores follow each other, [N]."""
    parts = torch.split(scores, [len(group.places) for group, _ in drawn])
    losses = [
        rank_loss(recipe.loss, part, chosen.to(part.device), tau=recipe.tau)
        for part, (_, chosen) in zip(parts, drawn, strict=True)
    ]
    return torch.stack(losses).sum()


def units(drawn: Drawn, recipe: SftRecipe) -> int:
    """Return how many terms the ranking loss of some groups sums; 1 where there are none."""
    return max(sum(rank_units(recipe.loss, pairs) for _, pairs in drawn), 1)
