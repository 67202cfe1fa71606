"""Evaluation report: a checkpoint or a bundle on judged sets, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.contract.bundle import MANIFEST, Bundle, BundleError, Precision
from service.contract.checkpoint import read_card
from service.contract.encoding import PairEncoder, TokenPair
from service.contract.types import Float32s, RankingExample
from training.data import ideal_grades, read_source
from training.evaluate import Evaluation, ScoreExample, evaluate
from training.recipe import EvaluateRecipe, JudgedSet, RecipeError

ScorePairs = Callable[[list[TokenPair]], Float32s]

HEADER = (
    "| set | ranking | queries | nDCG@5 | nDCG@10 | MRR@10 | PNR |\n|---|---|---|---|---|---|---|"
)


def report(
    recipe: EvaluateRecipe,
    *,
    data: Path,
    model: Path,
    precision: Precision | None,
    json_to: Path | None,
) -> None:
    """Print a Markdown table of the model's figures on each set of the recipe.

    A set whose candidates come from a retriever's run gets a row for that retriever's own order.

    Args:
        recipe: The judged sets.
        data: Folder they lie in.
        model: A bundle or a checkpoint.
        precision: Model of the bundle; default: the one that is served.
        json_to: Where to write the figures as JSON too.

    Raises:
        RecipeError: A set or the model cannot be read.
    """
    encoder, score_pairs, name = load_scorer(model, precision)
    rows: dict[str, dict[str, object]] = {}
    print(HEADER)
    for source in recipe.sets:
        examples = read_source(source, data)
        ideal = ideal_grades(source, data)
        title = source.path if source.split is None else f"{source.path} {source.split}"
        rankings: list[tuple[str, Sequence[Float32s]]] = [
            (name, _scores(examples, encoder, score_pairs, title))
        ]
        if source.runs is not None:
            rankings.insert(0, (_first_stage(source), [_input_order(row) for row in examples]))
        for ranking, scores in rankings:
            by_query = dict(zip((row.query_id for row in examples), scores, strict=True))
            found = evaluate(
                examples, _lookup(by_query), ideal=ideal, relevant_from=recipe.relevant_from
            )
            print(_row(title, ranking, found), flush=True)
            rows[f"{title} / {ranking}"] = found.as_dict()
    if json_to is not None:
        json_to.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def load_scorer(model: Path, precision: Precision | None) -> tuple[PairEncoder, ScorePairs, str]:
    """Return a model's encoder, its scoring function and a name for the report.

    Raises:
        RecipeError: The folder is neither a bundle nor a checkpoint, or lacks the precision.
    """
    try:
        if (model / MANIFEST).exists():
            return _bundle_scorer(model, precision)
        if not (model / "config.json").exists():
            raise RecipeError(f"{model} is no checkpoint or bundle")
        if precision is not None:
            raise RecipeError(f"{model} is no bundle: --precision chooses among a bundle's models")
        return _checkpoint_scorer(model)
    except (BundleError, OSError, ValueError) as error:
        raise RecipeError(f"{model}: {error}") from error


def _bundle_scorer(root: Path, precision: Precision | None) -> tuple[PairEncoder, ScorePairs, str]:
    from service.scorers.scorer import load_scorer

    bundle = Bundle.open(root)
    precision = precision or bundle.manifest.preferred_precision
    scorer = load_scorer(bundle, precision)
    return bundle.encoder(), scorer.score, f"{bundle.manifest.name} {precision}"


def _checkpoint_scorer(folder: Path) -> tuple[PairEncoder, ScorePairs, str]:
    import torch
    from transformers import AutoModelForSequenceClassification

    from training.student import score_pairs

    card = read_card(folder)
    encoder = PairEncoder.from_file(
        folder / "tokenizer.json",
        max_length=card.max_length,
        max_query_length=card.max_query_length,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(device)
    model.train(False)

    def score(pairs: list[TokenPair]) -> Float32s:
        with torch.inference_mode():
            found: Float32s = score_pairs(model, pairs, rows=8).cpu().numpy()
        return found

    return encoder, score, f"{folder.parent.name} torch"


def _scores(
    examples: Sequence[RankingExample], encoder: PairEncoder, score: ScorePairs, title: str
) -> list[Float32s]:
    return [
        score(encoder.encode(example.query, example.candidates))
        for example in tqdm(examples, desc=title, unit="query", disable=None)
    ]


def _lookup(by_query: dict[str, Float32s]) -> ScoreExample:
    return lambda example: by_query[example.query_id]


def _first_stage(source: JudgedSet) -> str:
    return f"{source.retriever or 'first stage'}, top {source.depth}"


def _input_order(example: RankingExample) -> Float32s:
    return -np.arange(len(example.candidates), dtype=np.float32)


def _row(title: str, ranking: str, found: Evaluation) -> str:
    figures = (found.ndcg_at_5, found.ndcg_at_10, found.mrr_at_10, found.pnr)
    return " | ".join((f"| {title}", ranking, str(found.queries), *map(str, figures))) + " |"
