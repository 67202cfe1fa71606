"""Distillation: teachers' scores into a 6-layer BERT (DisRanker section 3.4)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from service.contract.bundle import Relevance, ScoreMeaning, TeacherScale
from service.contract.checkpoint import Card
from service.contract.encoding import PairEncoder, TokenIds, TokenPair
from service.contract.types import RankingExample
from training.checkpoint import restore_folder, write_checkpoint
from training.data import ideal_grades, read_source
from training.evaluate import Evaluation, evaluate, fit_relevance
from training.label import teacher_name
from training.loop import Progress, train
from training.losses import group_mean, hybrid
from training.recipe import DistillRecipe, JudgedSet, Labels, RecipeError, TrainSource
from training.student import build_student, pair_encoder, score_pairs

CHECKPOINT = "checkpoint"
CALIBRATION_PAIRS = 4000


@dataclass(frozen=True, slots=True)
class TaughtQuery:
    """A query's token ids with its candidates' ids and standardised teacher scores."""

    query_ids: TokenIds
    document_ids: tuple[TokenIds, ...]
    teacher: NDArray[np.float32]  # [N]


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one query that are scored together in a step."""

    query: TaughtQuery
    places: NDArray[np.int64]  # [G] candidates of the query


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
    if restart:
        shutil.rmtree(folder, ignore_errors=True)
    accelerator = Accelerator(mixed_precision=recipe.precision)
    model, tokenizer = build_student(recipe.student, seed=recipe.seed)
    encoder = pair_encoder(tokenizer, recipe.student)
    taught, teachers, examples = _read_train(recipe, data, encoder)
    validation = [_Validation.read(source, data, encoder) for source in recipe.validation]
    held_out = [example for part in validation for example in part.examples]
    per_epoch = _steps_per_epoch(taught, recipe)
    epochs = _Epochs(taught, recipe)
    card = Card(
        max_length=recipe.student.max_length,
        max_query_length=recipe.student.max_query_length,
        score=ScoreMeaning(teachers=teachers),
        recipe=recipe.model_dump(mode="json"),
        metrics={},
    )

    def step_loss(student: nn.Module, step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        groups = epochs.step(epoch, place)
        mine = groups[accelerator.process_index :: accelerator.num_processes] or groups[:1]
        return _group_loss(student, mine, encoder, recipe)

    def figures(student: nn.Module) -> dict[str, float]:
        found = {part.name: part.run(student, recipe).ndcg_at_10.value for part in validation}
        return {**found, "ndcg_at_10": float(np.mean(list(found.values())))}

    def keep(student: nn.Module, row: dict[str, Any]) -> None:
        assert isinstance(student, BertForSequenceClassification)  # noqa: S101 - for the type only
        best = card.model_copy(update={"metrics": {"selected_at": row}})
        write_checkpoint(folder / CHECKPOINT, student, tokenizer, best, held_out)

    restore_folder(folder / CHECKPOINT)
    progress = train(
        model,
        accelerator=accelerator,
        folder=folder,
        fingerprint=_fingerprint(recipe, taught),
        settings=recipe.optimiser,
        steps=per_epoch * recipe.epochs,
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
        _finish(folder, recipe, model, tokenizer, card, progress, validation, examples, encoder)
    accelerator.wait_for_everyone()
    return folder / CHECKPOINT


def _finish(
    folder: Path,
    recipe: DistillRecipe,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    card: Card,
    progress: Progress,
    validation: Sequence[_Validation],
    examples: Sequence[RankingExample],
    encoder: PairEncoder,
) -> None:
    """Give the best checkpoint its calibration, its figures and the run's history."""
    model.load_state_dict(load_file(folder / CHECKPOINT / "model.safetensors"))
    model.train(False)
    with torch.no_grad():
        scale, offset = _calibrate(model, recipe, examples, encoder)
        figures = {part.name: part.run(model, recipe) for part in validation}
    relevance = Relevance(scale=scale, offset=offset)
    held_out = [example for part in validation for example in part.examples]
    metrics = {
        "validation": {name: found.as_dict() for name, found in figures.items()},
        "steps": progress.step,
        "history": progress.history,
    }
    final = card.model_copy(
        update={
            "score": card.score.model_copy(update={"relevance": relevance}),
            "metrics": metrics,
        }
    )
    write_checkpoint(folder / CHECKPOINT, model, tokenizer, final, held_out)
    for name, found in figures.items():
        tqdm.write(f"{name}: nDCG@10 {found.ndcg_at_10}  MRR@10 {found.mrr_at_10}  PNR {found.pnr}")


def _calibrate(
    model: nn.Module,
    recipe: DistillRecipe,
    examples: Sequence[RankingExample],
    encoder: PairEncoder,
) -> tuple[float, float]:
    """Fit Platt's scaling on the training examples that carry grades."""
    scores: list[float] = []
    relevant: list[bool] = []
    for example in examples:
        if len(scores) >= CALIBRATION_PAIRS:
            break
        pairs = encoder.encode(example.query, example.candidates)
        scores.extend(score_pairs(model, pairs, rows=recipe.rows_per_call).tolist())
        relevant.extend(grade >= recipe.relevant_from for grade in example.grades or ())
    return fit_relevance(scores, relevant)


@dataclass(frozen=True, slots=True)
class _Validation:
    name: str
    examples: tuple[RankingExample, ...]
    pairs: dict[str, list[TokenPair]]
    ideal: dict[str, list[float]]

    @classmethod
    def read(cls, source: JudgedSet, data: Path, encoder: PairEncoder) -> _Validation:
        examples = tuple(read_source(source, data))
        pairs = {
            example.query_id: encoder.encode(example.query, example.candidates)
            for example in examples
        }
        name = source.path if source.split is None else f"{source.path}:{source.split}"
        return cls(name, examples, pairs, ideal_grades(source, data))

    def run(self, model: nn.Module, recipe: DistillRecipe) -> Evaluation:
        def score(example: RankingExample) -> list[float]:
            pairs = self.pairs[example.query_id]
            scores = score_pairs(model, pairs, rows=recipe.rows_per_call)
            if not torch.isfinite(scores).all():
                raise RecipeError(
                    f"{self.name}: the student's scores are not finite; lower the learning rate"
                )
            return [float(x) for x in scores]

        return evaluate(self.examples, score, ideal=self.ideal, relevant_from=recipe.relevant_from)


class _Epochs:
    """The groups of each step, a function of (recipe seed, epoch, step) alone."""

    def __init__(self, taught: Sequence[tuple[TaughtQuery, int]], recipe: DistillRecipe) -> None:
        self._taught = taught
        self._recipe = recipe
        self._drawn: tuple[int, list[Group]] = (-1, [])

    def step(self, epoch: int, place: int) -> list[Group]:
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        size = self._recipe.groups_per_step
        return self._drawn[1][place * size : (place + 1) * size]

    def _draw(self, epoch: int) -> list[Group]:
        rng = np.random.default_rng([self._recipe.seed, epoch])
        groups: list[Group] = []
        for query, repeat in self._taught:
            for _ in range(repeat):
                order = rng.permutation(len(query.teacher))
                parts = np.array_split(order, _group_count(query, self._recipe))
                groups.extend(Group(query, part) for part in parts)
        return [groups[place] for place in rng.permutation(len(groups))]


def _read_train(
    recipe: DistillRecipe, data: Path, encoder: PairEncoder
) -> tuple[list[tuple[TaughtQuery, int]], dict[str, TeacherScale], list[RankingExample]]:
    """Return taught queries with their repeats, each teacher's scale, and the graded examples."""
    read = [(part, read_source(part.source, data)) for part in recipe.train]
    raw: dict[str, list[float]] = {}
    for part, examples in read:
        values = raw.setdefault(_teacher(part), [])
        values.extend(score for example in examples for score in _scores(part, example))
    scales = {
        name: TeacherScale(mean=float(np.mean(values)), std=float(np.std(values)) or 1.0)
        for name, values in raw.items()
    }
    taught = [
        (_taught(part, example, scales[_teacher(part)], encoder), part.repeat)
        for part, examples in read
        for example in examples
        if len(example.candidates) > 1
    ]
    graded = [
        example for part, examples in read if part.teacher == "grades" for example in examples
    ]
    return taught, scales, graded


def _taught(
    part: TrainSource, example: RankingExample, scale: TeacherScale, encoder: PairEncoder
) -> TaughtQuery:
    scores = (np.array(_scores(part, example)) - scale.mean) / scale.std
    return TaughtQuery(
        encoder.encode_query(example.query),
        tuple(encoder.encode_documents(example.candidates)),
        scores.astype(np.float32),
    )


def _teacher(part: TrainSource) -> str:
    if isinstance(part.source, JudgedSet):
        return f"grades:{part.source.path}"
    if isinstance(part.source, Labels) and part.teacher == "labels":
        return teacher_name(part.source.path)
    return "grades"


def _scores(part: TrainSource, example: RankingExample) -> Sequence[float]:
    scores = example.teacher_scores if part.teacher == "labels" else example.grades
    if scores is None:
        raise RecipeError(f"{_teacher(part)}: query {example.query_id!r} has no score to learn")
    return scores


def _group_count(query: TaughtQuery, recipe: DistillRecipe) -> int:
    return max(1, round(len(query.teacher) / recipe.group_size))


def _steps_per_epoch(taught: Sequence[tuple[TaughtQuery, int]], recipe: DistillRecipe) -> int:
    groups = sum(_group_count(query, recipe) * repeat for query, repeat in taught)
    return -(-groups // recipe.groups_per_step)


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


def _fingerprint(recipe: DistillRecipe, taught: Sequence[tuple[TaughtQuery, int]]) -> str:
    """Return a hash of the recipe and of everything it trains on."""
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for query, _ in taught:
        for array in (query.query_ids, query.teacher, *query.document_ids):
            digest.update(array.tobytes())
    return digest.hexdigest()
