"""RRA-GPT: a decoder learns to rank, and to say label and reason; it ranks without saying them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import TokenIds
from service.contract.types import RankingExample
from training.baselines.scorers import SplicingEncoder
from training.data import open_source
from training.figures import document_ids
from training.losses import IGNORED
from training.recipe import RecipeError
from training.rradistill.joint_model import JOINT
from training.rradistill.reasons import Reasons, read_reasons
from training.rradistill.recipes import RraGptRecipe
from training.sft import BatchScorer, Drawn, Run, StepLoss, rank_sum, spliced, train_scorer, units
from training.taught import DocumentIds, TaughtQuery

YES, NO = "yes", "no"


def rra_gpt(
    recipe: RraGptRecipe,
    *,
    data: Path,
    out: Path,
    restart: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train a ranker that also writes, and return its checkpoint's folder.

    The checkpoint is a decoder teacher's, without what was there to write: `label`, `compare` and
    `export bundle` take it. The loss is rank + γ · mean -log p of label and reason.

    Args:
        recipe: What to train on what.
        data: Folder of the judged sets the recipe names.
        out: Folder of runs.
        restart: Throw an earlier run of this name away.
        tensorboard: Write logs for TensorBoard to the run's `logs`.

    Raises:
        RecipeError: The recipe or an input cannot be used, or the folder holds another run.

    Source:
        RRADistill (Choi et al. 2024, arXiv:2410.18097). Our interpretation of the abstract: what is
        given ends with `</s>`, which the head reads; then come yes or no, by the tier, and why.
    """
    run = Run(recipe, data, out / recipe.name, restart, tensorboard)
    found = {} if recipe.reasons is None else read_reasons(recipe.reasons)

    def read(encoder: DecoderPairEncoder) -> list[TaughtQuery]:
        return read_labelled(recipe, data, encoder, found)

    def loss(encoder: SplicingEncoder, _: BatchScorer) -> StepLoss:
        return partial(joint_loss, encoder=encoder, recipe=recipe)

    return train_scorer(run, JOINT, read, loss)


def read_labelled(
    recipe: RraGptRecipe, data: Path, encoder: DecoderPairEncoder, reasons: Reasons
) -> list[TaughtQuery]:
    """Return the training queries whose labels differ, with what is to be written of each document.

    Raises:
        RecipeError: A source cannot be read, no query has two labels, or there are reasons and
            none is of a document that is taught.
    """
    queries, explained = [], 0
    for source in recipe.train:
        for example in open_source(source, data):
            labels = np.array(example.teacher_scores, dtype=np.float32)
            if len(set(labels.tolist())) < 2:
                continue
            documents = DocumentIds.of(encoder.encode_documents(example.candidates))
            answers = DocumentIds.of(_answers(example, recipe, encoder, reasons))
            query = encoder.encode_query(example.query)
            queries.append(TaughtQuery(query, documents, labels, 1, answers))
            explained += sum((example.query_id, name) in reasons for name in document_ids(example))
    if not queries:
        raise RecipeError("no training query has two labels")
    if reasons and not explained:
        raise RecipeError(f"{recipe.reasons} has reasons of other labels: none is of a document")
    return queries


def joint_loss(
    model: nn.Module, call: Drawn, step: Drawn, *, encoder: SplicingEncoder, recipe: RraGptRecipe
) -> Tensor:
    """Return a forward call's share of a step's loss: ranking, and γ times writing.

    Args:
        model: Returns scores and the summed loss of writing, as `JointModel`.
        call: The groups of the call.
        step: Those of the whole step.
        encoder: Makes the pairs.
        recipe: Losses and γ.
    """
    device = next(model.parameters()).device
    pairs, answers = spliced(call, encoder), _to_write(call)
    rows = [
        np.concatenate([pair.input_ids, answer])
        for pair, answer in zip(pairs, answers, strict=True)
    ]
    shape = (len(rows), max(map(len, rows)))
    ids = torch.full(shape, int(pairs[0].input_ids[-1]))  # [B, L]
    mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    for place, (pair, row) in enumerate(zip(pairs, rows, strict=True)):
        ids[place, : len(row)] = torch.from_numpy(row)
        mask[place, : len(row)] = 1
        labels[place, len(pair) : len(row)] = torch.from_numpy(row[len(pair) :])
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    inputs["last"] = torch.tensor([len(pair) - 1 for pair in pairs])
    scores, written = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    tokens = max(sum(map(len, _to_write(step))), 1)
    ranked: Tensor = rank_sum(call, scores, recipe) / units(step, recipe)
    loss: Tensor = ranked + recipe.gamma * written / tokens
    return loss


def _to_write(drawn: Drawn) -> list[TokenIds]:
    """Return what is to be written of each document; nothing in a group of one, which fills up."""
    nothing = np.array([], dtype=np.int32)
    return [
        nothing if len(group.places) == 1 or group.query.answers is None else group.query.answers[n]
        for group, _ in drawn
        for n in group.places
    ]


def _answers(
    example: RankingExample, recipe: RraGptRecipe, encoder: DecoderPairEncoder, reasons: Reasons
) -> list[TokenIds]:
    """Return label and reason of each candidate, cut, each closed by `</s>`."""
    empty = np.array([], dtype=np.int32)
    eos = encoder.splice(empty, empty).input_ids[-1:].astype(np.int32)
    texts = []
    for name, score in zip(document_ids(example), example.teacher_scores or (), strict=True):
        label = YES if score >= recipe.yes_from else NO
        texts.append(f"{label} {reasons.get((example.query_id, name), '')}".strip())
    kept = recipe.answer_tokens - 1
    return [np.concatenate([ids[:kept], eos]) for ids in encoder.encode_texts(texts)]
