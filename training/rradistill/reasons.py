"""Reasons: a language model says why a document does, or does not, answer a query."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from training.data import LabelFolder
from training.figures import document_ids
from training.lines import read_lines
from training.prompting.question import LanguageModel, Write, in_order
from training.prompting.speakers import open_speaker
from training.recipe import RecipeError
from training.rradistill.recipes import ReasonsRecipe
from training.shards import write_json, write_whole

DONE = "reasons.json"
REASONS = "reasons.jsonl"

PROMPT = """\
Search query: {query}

Document: {document}

The document {judged} the query. Say why in one sentence.
Reason:"""

JUDGED = {True: "answers", False: "does not answer"}

Reasons = dict[tuple[str, str], str]
"""By query id and document id."""


def reasons(recipe: ReasonsRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Write a reason for each label to `out/<recipe name>` and return the folder.

    Nothing is asked of queries whose labels are all alike, which teach nothing. A run that was
    stopped goes on from the answers in the recipe's cache.

    Args:
        recipe: Labels and language model.
        data: Not needed: labels name no set.
        out: Folder of runs.
        restart: Write them again.

    Raises:
        RecipeError: The labels or the language model cannot be used, or the folder holds reasons of
            another recipe.

    Source:
        RRADistill (Choi et al. 2024, arXiv:2410.18097): a smaller language model writes reasons.
        What it is shown, and the wording, are our interpretation of the abstract.
    """
    del data
    folder = out / recipe.name
    told = {"recipe": recipe.model_dump(mode="json")}
    if not restart and (folder / DONE).exists():
        if json.loads((folder / DONE).read_text(encoding="utf-8")) != told:
            raise RecipeError(
                f"{folder} holds reasons of another recipe; "
                "give the recipe a new name, or start over with --restart"
            )
        return folder
    examples = LabelFolder(recipe.labels)
    model = open_speaker(recipe.model, recipe.cache)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = [
            row for example in tqdm(examples, unit="query") for row in _rows(example, model, recipe)
        ]
    finally:  # what was answered has been paid for
        tqdm.write(f"{recipe.name}: {model}")
    write_whole(folder / REASONS, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    write_json(folder / DONE, dict(told))
    return folder


def read_reasons(folder: Path) -> Reasons:
    """Return the reasons of a folder.

    Raises:
        RecipeError: It has none, or a line of them is malformed.
    """
    found: Reasons = {}
    for where, line in read_lines(folder / REASONS):
        try:
            row = json.loads(line)
            found[row["query_id"], row["document_id"]] = str(row["reason"])
        except (ValueError, KeyError, TypeError):
            raise RecipeError(f"{where}: no reason of a query's document") from None
    return found


def _rows(
    example: RankingExample, model: LanguageModel, recipe: ReasonsRecipe
) -> Iterator[dict[str, str]]:
    scores = _scores(example)
    if len(set(scores)) < 2:
        return
    questions = [
        Write(
            _prompt(example.query, candidate, score >= recipe.yes_from, recipe),
            recipe.reason_tokens,
        )
        for candidate, score in zip(example.candidates, scores, strict=True)
    ]
    for name, answer in zip(document_ids(example), in_order(model.ask(questions)), strict=True):
        reason = " ".join(answer.text.split())
        yield {"query_id": example.query_id, "document_id": name, "reason": reason}


def _scores(example: RankingExample) -> Sequence[float]:
    if example.teacher_scores is None:
        raise RecipeError(f"query {example.query_id!r} has no labels to give reasons for")
    return example.teacher_scores


def _prompt(query: str, candidate: Candidate, good: bool, recipe: ReasonsRecipe) -> str:
    document = " ".join(document_text(candidate).split()[: recipe.document_words])
    return PROMPT.format(query=query, document=document, judged=JUDGED[good])
