"""Ranking losses against values computed by hand, other libraries' forms and autograd's signs."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.losses import ordered_pairs, rank_loss, rank_units, ranknet, softmax_over_worse
from training.recipe import RankLoss


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ranknet_by_hand() -> None:
    pairs = ordered_pairs(row(2, 1, 0))
    expected = sum(math.log(1 + math.exp(low - high)) for high, low in ((3, 1), (3, 2), (1, 2)))
    assert float(ranknet(row(3, 1, 2), pairs)) == pytest.approx(expected)


def test_ranknet_is_the_cross_entropy_of_a_certain_preference() -> None:
    scores = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = ordered_pairs(row(3, 0, 2, 2, 1, 0))
    gaps = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    expected = binary_cross_entropy_with_logits(gaps, torch.ones_like(gaps), reduction="sum")
    assert torch.allclose(ranknet(scores, pairs), expected)


def test_softmax_with_one_better_candidate_is_cross_entropy() -> None:
    scores = row(0.5, 2.0, -1.0, 0.0)
    expected = cross_entropy(scores[None], torch.tensor([1]))
    assert torch.allclose(softmax_over_worse(scores, ordered_pairs(row(0, 1, 0, 0))), expected)


def test_softmax_sets_each_better_candidate_against_the_worse_alone() -> None:
    first = -2.0 + math.log(math.exp(2) + math.exp(1) + math.exp(0))
    second = -1.0 + math.log(math.exp(1) + math.exp(0))
    found = softmax_over_worse(row(2, 1, 0), ordered_pairs(row(2, 1, 0)))
    assert float(found) == pytest.approx(first + second)


@pytest.mark.parametrize("name", get_args(RankLoss))
def test_every_ranking_loss_lifts_the_best_and_lowers_the_worst(name: RankLoss) -> None:
    scores = row(0.0, 0.0, 0.0).requires_grad_()
    rank_loss(name, scores, ordered_pairs(row(2, 1, 0)), tau=0.1).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad[0] < 0 < scores.grad[2]


@pytest.mark.parametrize("name", get_args(RankLoss))
def test_without_pairs_nothing_is_lost(name: RankLoss) -> None:
    pairs = ordered_pairs(row(1, 1))
    scores = row(1.0, 2.0).requires_grad_()
    loss = rank_loss(name, scores, pairs, tau=0.1)
    assert loss.item() == 0.0
    assert rank_units(name, pairs) == 0


def test_terms_are_pairs_or_better_candidates() -> None:
    pairs = ordered_pairs(row(2, 1, 0))
    assert (rank_units("hinge", pairs), rank_units("softmax", pairs)) == (3, 2)


def test_tiers_are_all_the_pairs_between_them() -> None:
    ranked, omitted, unseen = (2.0, 1.0), (0.0, 0.0), (-1.0,)
    pairs = {tuple(pair) for pair in ordered_pairs(row(*ranked, *omitted, *unseen)).tolist()}
    assert pairs == {(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4)}
