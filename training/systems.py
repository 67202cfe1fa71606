"""Ranking systems by path or name: a checkpoint, a bundle, a run, labels, BM25, a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.contract.bundle import MANIFEST, Bundle, BundleError
from service.contract.checkpoint import Card, read_card
from service.contract.encoding import PairEncoder, TokenPair
from service.contract.manifest import Precision, Relevance
from service.contract.template import TEMPLATE
from service.contract.types import Float32s, RankingExample
from training.baselines.scorers import Way, way_of
from training.data import read_labels
from training.figures import Floats, document_ids
from training.prompting.prompted import Prompted
from training.recipe import RecipeError
from training.system_names import BI_ENCODER, BM25
from training.trec import Run, read_run
from training.validation import Encoder as PairsEncoder
from training.zero_shot import Bm25, Cosine

ScorePairs = Callable[[list[TokenPair]], Float32s]


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint or a bundle: scores every candidate.

    `relevance` is how its scores become P(relevant), where it says so.
    """

    name: str
    encoder: PairsEncoder
    score_pairs: ScorePairs
    relevance: Relevance | None

    def score(self, example: RankingExample) -> tuple[list[str], Floats]:
        """Return the candidates' ids and raw logits.

        Raises:
            RecipeError: A score is not finite.
        """
        pairs = self.encoder.encode(example.query, example.candidates)
        scores = np.asarray(self.score_pairs(pairs), dtype=np.float64)
        if not np.isfinite(scores).all():
            raise RecipeError(f"{self.name}: a score of query {example.query_id!r} is not finite")
        return document_ids(example), scores


@dataclass(frozen=True, slots=True)
class Recorded:
    """Scores from a file: knows the queries and documents that are in it, and no others."""

    name: str
    run: Run
    relevance: Relevance | None = None

    def score(self, example: RankingExample) -> tuple[list[str], Floats]:
        """Return the file's documents of the query, best first; none where it has none."""
        scores = self.run.get(example.query_id, {})
        return list(scores), np.array(list(scores.values()), dtype=np.float64)


System = Model | Recorded | Bm25 | Cosine | Prompted


def load_system(path: Path, precision: Precision | None = None) -> System:
    """Return the system at a path.

    Args:
        path: A bundle's, checkpoint's or label folder, a TREC run file, or the TOML recipe of a
            prompted language model; `bm25`, or `bi-encoder:` before a bi-encoder's folder or name.
        precision: Model of a bundle; default: the one that is served.

    Raises:
        RecipeError: It is none of these, or lacks the precision.
    """
    if str(path) == BM25:
        return Bm25()
    if str(path).startswith(BI_ENCODER):
        return Cosine.load(str(path).removeprefix(BI_ENCODER))
    if path.suffix == ".toml":
        return Prompted.load(path)
    if path.is_file():
        return Recorded(path.name.removesuffix(".gz").removesuffix(".run"), read_run(path))
    if (path / "labels.json").exists():
        return Recorded(f"{path.name} labels", _labels(path))
    try:
        if (path / MANIFEST).exists():
            return _bundle(path, precision)
        if not (path / "config.json").exists():
            raise RecipeError(f"{path} is no checkpoint or bundle")
        if precision is not None:
            raise RecipeError(f"{path} is no bundle: --precision chooses among a bundle's models")
        return _checkpoint(path)
    except (BundleError, OSError, ValueError) as error:
        raise RecipeError(f"{path}: {error}") from error


def load_systems(paths: list[Path], precision: Precision | None = None) -> list[System]:
    """Return systems whose names differ: a name that comes twice is followed by its path.

    Raises:
        RecipeError: One cannot be loaded, or a path comes twice.
    """
    if len(set(paths)) < len(paths):
        raise RecipeError("a --model is there twice; a system can be compared with others only")
    systems = [load_system(path, precision if _is_bundle(path) else None) for path in paths]
    names = [system.name for system in systems]
    return [
        replace(system, name=f"{system.name} ({path})") if names.count(system.name) > 1 else system
        for system, path in zip(systems, paths, strict=True)
    ]


def _is_bundle(path: Path) -> bool:
    return (path / MANIFEST).exists()


def _labels(folder: Path) -> Run:
    run: Run = {}
    for example in read_labels(folder):
        scores = zip(document_ids(example), example.teacher_scores or (), strict=True)
        run[example.query_id] = dict(sorted(scores, key=lambda row: -row[1]))
    return run


def _bundle(root: Path, precision: Precision | None) -> Model:
    from service.scorers.scorer import load_scorer

    bundle = Bundle.open(root)
    precision = precision or bundle.manifest.preferred_precision
    scorer = load_scorer(bundle, precision)
    name = f"{bundle.manifest.name} {precision}"
    return Model(name, bundle.encoder(), scorer.score, bundle.manifest.score.relevance)


def _checkpoint(folder: Path) -> Model:
    import torch
    from transformers import AutoModelForSequenceClassification

    from training.student import score_pairs

    card = read_card(folder)
    if (way := way_of(card.template)) is not None:
        return _decoder(folder, card, way)
    if card.template != TEMPLATE:
        raise RecipeError(f"{folder} is made for {card.template!r} pairs, which nobody knows here")
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

    return Model(f"{folder.parent.name} torch", encoder, score, card.score.relevance)


def _decoder(folder: Path, card: Card, way: Way) -> Model:
    import torch

    model, tokenizer, encoder = way.load(folder, card)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scorer = way.scorer(torch.nn.Module.to(model, device), tokenizer, 8)

    def score(pairs: list[TokenPair]) -> Float32s:
        with torch.inference_mode():
            found: Float32s = scorer(pairs).cpu().numpy()
        return found

    return Model(f"{folder.parent.name} torch", encoder, score, card.score.relevance)
