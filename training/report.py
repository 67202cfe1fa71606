"""Evaluation report: a checkpoint, a bundle or a run on judged sets, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.contract.manifest import Precision
from service.contract.metrics import Gain
from training.evaluate import Evaluation, summarise
from training.figures import JudgedScores
from training.judged import JudgedQueries, read_judged_queries
from training.recipe import EvaluateRecipe
from training.systems import load_system
from training.trec import write_qrels, write_run


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the figures go beside the table."""

    json_to: Path | None = None
    runs_to: Path | None = None


def report(
    recipe: EvaluateRecipe,
    *,
    data: Path,
    model: Path,
    precision: Precision | None,
    outputs: Outputs,
) -> None:
    """Print a Markdown table of the model's figures on each set of the recipe.

    A set whose candidates come from a retriever's run gets a row for that retriever's own order.

    Args:
        recipe: The judged sets.
        data: Folder they lie in.
        model: A bundle, a checkpoint, a folder of labels or a TREC run.
        precision: Model of the bundle; default: the one that is served.
        outputs: `json_to` gets the figures as JSON; `runs_to` a folder a set, with `qrels.txt` and
            a run a ranking for trec_eval and ir_measures.

    Raises:
        RecipeError: A set or the model cannot be read, or a name does not fit TREC files.
    """
    system = load_system(model, precision)
    rows: dict[str, dict[str, object]] = {}
    print(_header(recipe.gain))
    for source in recipe.sets:
        judged = read_judged_queries(source, data)
        rankings = {system.name: judged.score(system)}
        if judged.first_stage_name is not None:
            rankings = {judged.first_stage_name: judged.first_stage(), **rankings}
        for name, scores in rankings.items():
            found = summarise(scores, relevant_from=recipe.relevant_from, gain=recipe.gain)
            print(_row(judged.name, name, found), flush=True)
            rows[f"{judged.name} / {name}"] = found.as_dict()
        if outputs.runs_to is not None:
            _write_runs(outputs.runs_to / file_name(judged.name), judged, rankings)
    if outputs.json_to is not None:
        outputs.json_to.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _write_runs(
    folder: Path, judged: JudgedQueries, rankings: dict[str, list[JudgedScores]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_qrels(folder / "qrels.txt", judged.judgements())
    for name, scores in rankings.items():
        tag = file_name(name)
        ranked: dict[str, Sequence[str]] = {query.query_id: query.ranked for query in scores}
        write_run(folder / f"{tag}.run", ranked, tag=tag)


def file_name(name: str) -> str:
    """Return a name with `-` for all that is unusual in file names and TREC tags."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def _header(gain: Gain) -> str:
    names = f"nDCG@5 ({gain}) | nDCG@10 ({gain}) | MRR@10 | PNR | pairwise accuracy"
    return f"| set | ranking | queries | {names} |\n" + "|---" * 8 + "|"


def _row(title: str, ranking: str, found: Evaluation) -> str:
    figures = (
        found.ndcg_at_5,
        found.ndcg_at_10,
        found.mrr_at_10,
        found.pnr,
        found.pairwise_accuracy,
    )
    return " | ".join((f"| {title}", ranking, str(found.queries), *map(str, figures))) + " |"
