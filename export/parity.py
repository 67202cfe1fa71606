"""Does an exported model rank like its checkpoint? Measured on real pairs, held against gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export.errors import ExportError
from service.contract.agreement import kendall_tau_b, top_overlap
from service.contract.encoder import Encoder
from service.contract.encoding import TokenPair
from service.contract.manifest import Precision
from service.contract.metrics import ndcg
from service.contract.triton import FP16_TOLERANCE
from service.contract.types import Float32s, RankingExample

ScorePairs = Callable[[Sequence[TokenPair]], Float32s]


@dataclass(frozen=True, slots=True)
class Gates:
    """What a precision has to keep of the checkpoint's ranking."""

    max_delta: float | None = None
    min_tau: float | None = None
    min_overlap: float | None = None
    max_ndcg_drop: float | None = None

    def for_scores(self, scores: Sequence[Float32s]) -> Gates:
        """Return the gates for a model whose scores these are, `max_delta` wider by `widening`."""
        if self.max_delta is None:
            return self
        return replace(self, max_delta=self.max_delta * widening(scores))


def widening(scores: Sequence[Float32s]) -> float:
    """Return how much further apart than scores up to 10 these may be: float32 has seven digits."""
    return max(1.0, max(float(np.abs(row).max(initial=0)) for row in scores) / 10)


GATES: dict[Precision, Gates] = {
    "fp32": Gates(max_delta=1e-4),
    "int8": Gates(min_tau=0.98, min_overlap=0.98, max_ndcg_drop=0.005),
}

HALF_GATES = replace(GATES["int8"], max_delta=FP16_TOLERANCE)
"""For fp16: the ranking as for int8, and the scores near."""


@dataclass(frozen=True, slots=True)
class Parity:
    """An exported model beside its checkpoint.

    Attributes:
        queries: Queries with at least two candidates.
        pairs: Pairs scored.
        max_delta: Largest |score - torch score|, logits.
        mean_delta: Mean of the same.
        kendall_tau: Mean τ-b over queries.
        top10_overlap: Mean share of the torch top 10 kept, over queries with more than ten
            candidates (all queries where there is none).
        ndcg_drop: Torch's mean nDCG@10 less the model's; None without grades.
    """

    queries: int
    pairs: int
    max_delta: float
    mean_delta: float
    kendall_tau: float
    top10_overlap: float
    ndcg_drop: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the figures rounded for a manifest."""
        return {
            name: None if value is None else round(value, 6) for name, value in asdict(self).items()
        }

    def failures(self, gates: Gates) -> list[str]:
        """Return one line per gate that does not hold."""
        checks = (
            ("max |Δ|", self.max_delta, "at most", gates.max_delta),
            ("Kendall τ", self.kendall_tau, "at least", gates.min_tau),
            ("top-10 overlap", self.top10_overlap, "at least", gates.min_overlap),
            ("nDCG@10 drop", self.ndcg_drop, "at most", gates.max_ndcg_drop),
        )
        return [
            f"{name} is {value:.6f}, the gate is {side} {limit}"
            for name, value, side, limit in checks
            if value is not None
            and limit is not None
            and not (value <= limit if side == "at most" else value >= limit)
        ]


def torch_scores(
    checkpoint: Path, examples: Sequence[list[TokenPair]], inputs: Sequence[str]
) -> list[Float32s]:
    """Return the checkpoint's fp32 scores, each pair in a call of its own at its exact length.

    Args:
        checkpoint: A Hugging Face folder with one label.
        examples: Pairs, a list per query.
        inputs: What the model takes of a pair, by name.

    Raises:
        ExportError: The weights cannot be loaded, or a score is not finite.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, output_loading_info=True
        )
    except Exception as error:  # transformers and safetensors share no base class
        raise ExportError(f"{checkpoint}: the weights cannot be loaded: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ExportError(f"{checkpoint}: the weights lack {', '.join(missing)}")
    model.float().train(False)

    def score(pair: TokenPair) -> float:
        ids = torch.from_numpy(pair.input_ids)[None, :]  # [1, L]
        known = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.from_numpy(pair.token_type_ids)[None, :],
        }
        return float(model(**{name: known[name] for name in inputs}).logits[0, 0])

    with torch.inference_mode():
        scores = [
            np.array([score(pair) for pair in pairs], dtype=np.float32)
            for pairs in tqdm(examples, desc="torch fp32", unit="query", disable=None)
        ]
    if not all(np.isfinite(found).all() for found in scores):
        raise ExportError(f"{checkpoint}: its scores are not finite")
    return scores


def encode_examples(encoder: Encoder, examples: Sequence[RankingExample]) -> list[list[TokenPair]]:
    """Return the pairs of each example."""
    return [encoder.encode(example.query, example.candidates) for example in examples]


def compare(
    examples: Sequence[RankingExample],
    pairs: Sequence[list[TokenPair]],
    reference: Sequence[Float32s],
    score: ScorePairs,
    *,
    name: str,
) -> Parity:
    """Return how a model's scores stand beside the reference's.

    Args:
        examples: Queries; those with grades enter the nDCG figure.
        pairs: Their token pairs.
        reference: Torch's scores of them.
        score: The model.
        name: Of the model, for the progress bar and errors.

    Raises:
        ExportError: A score of the model is not finite.
    """
    deltas: list[Float32s] = []
    taus: list[float] = []
    overlaps: list[float] = []
    short_overlaps: list[float] = []
    drops: list[float] = []
    for example, row, expected in tqdm(
        list(zip(examples, pairs, reference, strict=True)), desc=name, unit="query", disable=None
    ):
        found = score(row)
        if not np.isfinite(found).all():
            raise ExportError(f"{name}: query {example.query_id!r} has a score that is not finite")
        deltas.append(np.abs(found - expected))
        if len(row) > 1:
            tau = kendall_tau_b(expected, found)
            taus.append(1.0 if np.isnan(tau) else tau)
            target = overlaps if len(row) > 10 else short_overlaps
            target.append(top_overlap(expected, found, 10))
        if example.grades is not None:
            drops.append(ndcg(example.grades, expected, 10) - ndcg(example.grades, found, 10))
    flat = np.concatenate(deltas)
    return Parity(
        queries=len(taus),
        pairs=len(flat),
        max_delta=float(flat.max()),
        mean_delta=float(flat.mean()),
        kendall_tau=float(np.mean(taus)) if taus else 1.0,
        top10_overlap=float(np.mean(overlaps or short_overlaps or [1.0])),
        ndcg_drop=float(np.mean(drops)) if drops else None,
    )
