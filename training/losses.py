"""Losses: a teacher's language modelling and pairwise hinge, a student's distillation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, margin_ranking_loss, softplus

from training.recipe import RankLoss, StudentLoss

IGNORED = -100
"""Label of a token that is not learnt."""


def target_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over targets of -log p(label | tokens before it); 0.0 without a target.

    A sum, to be divided by the targets of a whole step: means of micro-batches with fewer targets
    would weigh theirs more.

    Args:
        logits: [B, L, V]; those at place i predict the token at i + 1.
        labels: Token ids, `IGNORED` where nothing is learnt, [B, L] int64.

    Source:
        DisRanker section 3.2: the query's tokens are given, title and summary are learnt.
    """
    predicted = logits[:, :-1].flatten(0, 1).float()  # [B · (L - 1), V]
    return cross_entropy(predicted, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


def pairwise_hinge(scores: Tensor, pairs: Tensor, *, tau: float = 0.1) -> Tensor:
    """Return the sum over pairs of max(0, τ - f(better) + f(worse)); 0.0 without pairs.

    A sum, to be divided by the pairs of a whole step.

    Args:
        scores: Scores of one query's candidates, [N].
        pairs: Row i holds (better, worse) candidate indices, [P, 2] int64.
        tau: Margin from which a pair costs nothing.

    Source:
        DisRanker section 3.3, τ = 0.1. Its printed max(0, f(d+) - f(d-), τ) would push the better
        one down: this is the hinge that the text describes.
    """
    better, worse = scores[pairs].unbind(dim=1)  # [P], [P]
    return margin_ranking_loss(better, worse, torch.ones_like(better), margin=tau, reduction="sum")


def ranknet(scores: Tensor, pairs: Tensor) -> Tensor:
    """Return the sum over pairs of log(1 + exp(f(worse) - f(better))); 0.0 without pairs.

    Only the order of the teacher counts, so that places of a permutation will do: ranked documents,
    then those that were left out, then negatives that nobody was asked about.

    Args:
        scores: Scores of one query's candidates, [N].
        pairs: Row i holds (better, worse) candidate indices, [P, 2] int64.

    Source:
        Burges et al. 2005, "Learning to rank using gradient descent", eq. 3 with a target of 1.
    """
    better, worse = scores[pairs].unbind(dim=1)  # [P], [P]
    return softplus(worse - better).sum()


def softmax_over_worse(scores: Tensor, pairs: Tensor) -> Tensor:
    """Return the sum over better candidates of -log of their softmax among those they beat.

    With one better candidate among n, the cross-entropy of choosing it; 0.0 without pairs.

    Args:
        scores: Scores of one query's candidates, [N].
        pairs: Row i holds (better, worse) candidate indices, [P, 2] int64.

    Source:
        RankLLaMA (Ma et al. 2023, arXiv:2310.08319), eq. 4, where one document is relevant. Several
        grades are our reading: each better document stands against the worse ones alone.
    """
    seen = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    seen[pairs[:, 0], pairs[:, 1]] = True  # [N, N]
    better = seen.sum(dim=1).gt(1).nonzero()[:, 0]  # [B]
    among = scores.expand(len(scores), -1).masked_fill(~seen, float("-inf"))[better]  # [B, N]
    return (among.logsumexp(dim=1) - scores[better]).sum()


def rank_loss(name: RankLoss, scores: Tensor, pairs: Tensor, *, tau: float) -> Tensor:
    """Return a ranking loss by name, summed over `rank_units`; 0.0 without pairs."""
    match name:
        case "hinge":
            return pairwise_hinge(scores, pairs, tau=tau)
        case "ranknet":
            return ranknet(scores, pairs)
        case "softmax":
            return softmax_over_worse(scores, pairs)


def rank_units(name: RankLoss, pairs: Tensor) -> int:
    """Return how many terms `rank_loss` sums: pairs, or the better candidates of these."""
    return len(set(pairs[:, 0].tolist())) if name == "softmax" else len(pairs)


def ordered_pairs(teacher: Tensor) -> Tensor:
    """Return every (better, worse) pair of candidates by the teacher's scores, [P, 2] int64.

    Ties make no pair.

    Args:
        teacher: Scores of one query's candidates, [N].
    """
    return (teacher[:, None] > teacher[None, :]).nonzero()  # [P, 2]


def point_mse(student: Tensor, teacher: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean over pairs of both members' squared errors; 0.0 without pairs.

    Args:
        student: Scores of one query's candidates, [N].
        teacher: Standardised scores of the same candidates, [N].
        pairs: Row i holds (better, worse) candidate indices, [P, 2] int64.

    Source:
        DisRanker section 3.4: printed as a square, called an absolute difference in prose.
    """
    squared = (student - teacher).square()  # [N]
    return squared[pairs].sum() / max(len(pairs), 1)


def margin_mse(student: Tensor, teacher: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean squared difference of the student's and the teacher's margins.

    Zero when the student keeps every gap, whatever its offset; 0.0 (not NaN) without pairs.

    Args:
        student: Scores of one query's candidates, [N], any scale.
        teacher: Standardised scores of the same candidates, [N].
        pairs: Row i holds (better, worse) candidate indices, [P, 2] int64.

    Source:
        Hofstätter et al. 2020, arXiv:2010.02666, eq. 3; DisRanker section 3.4.
    """
    better, worse = pairs.unbind(dim=1)  # [P], [P]
    gap = (teacher[better] - teacher[worse]) - (student[better] - student[worse])  # [P]
    return gap.square().sum() / max(len(pairs), 1)


def hybrid(student: Tensor, teacher: Tensor, *, beta: float = 0.4) -> Tensor:
    """Return point + β · margin over all ordered pairs of one query's candidates.

    Where the teacher ties all candidates there is no pair, and the point term alone is taken
    over the candidates, so that an all-irrelevant list still teaches its level.

    Source:
        DisRanker section 3.4, β = 0.4.
    """
    pairs = ordered_pairs(teacher)
    if len(pairs) == 0:
        return 2 * (student - teacher).square().mean()
    return point_mse(student, teacher, pairs) + beta * margin_mse(student, teacher, pairs)


def student_loss(
    name: StudentLoss, student: Tensor, teacher: Tensor, *, beta: float, tau: float
) -> Tensor:
    """Return a loss over one query's candidates, by name.

    `hybrid`, its parts `point` and `margin`, `mse` (each candidate once, however many pairs it is
    in), or the pairs' order alone: `hinge`, as where labels and no teacher are at hand, and
    `ranknet`, as where the teacher gives a permutation.

    Args:
        name: Which.
        student: Scores of one query's candidates, [N].
        teacher: Standardised scores, or grades, of the same candidates, [N].
        beta: Weight of the hybrid's margin term.
        tau: Margin of the hinge.
    """
    pairs = ordered_pairs(teacher)
    match name:
        case "hybrid":
            return hybrid(student, teacher, beta=beta)
        case "point":
            return hybrid(student, teacher, beta=0.0)
        case "margin":
            return margin_mse(student, teacher, pairs)
        case "mse":
            return (student - teacher).square().mean()
        case "hinge":
            return pairwise_hinge(student, pairs, tau=tau) / max(len(pairs), 1)
        case "ranknet":
            return ranknet(student, pairs) / max(len(pairs), 1)


def group_mean(losses: list[Tensor]) -> Tensor:
    """Return the mean of the groups' losses."""
    return torch.stack(losses).mean()
