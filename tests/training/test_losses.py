"""Losses against values computed by hand, the hybrid's exact identity, and autograd's signs."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from training.losses import (
    IGNORED,
    group_mean,
    hybrid,
    margin_mse,
    ordered_pairs,
    pairwise_hinge,
    point_mse,
    student_loss,
    target_cross_entropy,
)
from training.recipe import StudentLoss


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_row(length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, dtype=torch.float64, generator=generator)


def identity(student: Tensor, teacher: Tensor, beta: float) -> float:
    """Return the mean over ordered pairs of 2c² + (2 + 4β)δ², pair by pair in plain Python."""
    errors = (student - teacher).tolist()
    levels = teacher.tolist()
    terms = []
    for better, high in enumerate(levels):
        for worse, low in enumerate(levels):
            if high > low:
                c = (errors[better] + errors[worse]) / 2
                delta = (errors[better] - errors[worse]) / 2
                terms.append(2 * c**2 + (2 + 4 * beta) * delta**2)
    return math.fsum(terms) / len(terms)


def test_pairs_are_the_teachers_strict_order() -> None:
    assert ordered_pairs(row(2, 1, 2, 0)).tolist() == [[0, 1], [0, 3], [1, 3], [2, 1], [2, 3]]


def test_ties_make_no_pair() -> None:
    assert ordered_pairs(row(1, 1, 1)).shape == (0, 2)
    assert ordered_pairs(row(1)).shape == (0, 2)


def test_losses_by_hand() -> None:
    teacher, student = row(2, 0, -1), row(1, 0.5, 0)
    pairs = ordered_pairs(teacher)  # (0, 1), (0, 2), (1, 2)
    # Squared errors 1, 0.25, 1. Point: 1.25, 2, 1.25. Gaps 2-0.5, 3-1, 1-0.5: 2.25, 4, 0.25.
    assert point_mse(student, teacher, pairs).item() == pytest.approx(4.5 / 3)
    assert margin_mse(student, teacher, pairs).item() == pytest.approx(6.5 / 3)
    assert hybrid(student, teacher).item() == pytest.approx(4.5 / 3 + 0.4 * 6.5 / 3)
    assert hybrid(student, teacher, beta=2).item() == pytest.approx(17.5 / 3)


@pytest.mark.parametrize("beta", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("length", [2, 3, 9])
def test_hybrid_is_twice_the_common_error_and_2_plus_4_beta_times_the_opposed(
    beta: float, length: int
) -> None:
    student, teacher = random_row(length, 1), random_row(length, 2)
    teacher[-1] = teacher[0]  # a tie, which makes no pair
    if length == 2:
        teacher[-1] += 1
    expected = identity(student, teacher, beta)
    assert hybrid(student, teacher, beta=beta).item() == pytest.approx(expected, rel=1e-12)


def test_margin_ignores_an_offset_and_point_does_not() -> None:
    teacher = random_row(5, 3)
    pairs = ordered_pairs(teacher)
    assert margin_mse(teacher + 7, teacher, pairs).item() == pytest.approx(0, abs=1e-24)
    assert point_mse(teacher + 7, teacher, pairs).item() == pytest.approx(2 * 49)


def test_a_perfect_student_has_no_loss() -> None:
    teacher = random_row(6, 4)
    assert hybrid(teacher, teacher).item() == 0.0


def test_descent_moves_each_score_towards_its_teacher() -> None:
    teacher = row(1, -1)
    student = row(-0.5, 0.5).requires_grad_()
    hybrid(student, teacher).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    better, worse = student.grad.tolist()
    assert better < 0 < worse  # descent raises the better one and lowers the worse


def test_margin_opens_too_small_a_gap_and_closes_too_large_a_one() -> None:
    teacher = row(1, -1)
    for gap, sign in ((0.5, -1.0), (3.5, 1.0)):
        student = row(gap / 2, -gap / 2).requires_grad_()
        margin_mse(student, teacher, ordered_pairs(teacher)).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        assert torch.sign(student.grad).tolist() == [sign, -sign]


def test_without_pairs_the_pair_losses_are_zero_not_nan() -> None:
    student, teacher = row(1, 2), row(3, 3)
    pairs = ordered_pairs(teacher)
    assert point_mse(student, teacher, pairs).item() == 0.0
    assert margin_mse(student, teacher, pairs).item() == 0.0


def test_without_pairs_hybrid_is_the_point_term_over_the_candidates() -> None:
    # Errors -2 and -1; as in a pair, both members' squares: 2 · mean(4, 1).
    assert hybrid(row(1, 2), row(3, 3)).item() == pytest.approx(5.0)
    student = row(1, 2).requires_grad_()
    hybrid(student, row(3, 3)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert (student.grad < 0).all()  # both below the teacher's level: descent raises both


def test_group_mean_weighs_groups_alike_whatever_their_size() -> None:
    assert group_mean([row(1).sum(), row(2, 4).sum()]).item() == pytest.approx(3.5)


def test_target_cross_entropy_is_the_summed_surprise_of_the_labelled_tokens() -> None:
    # Two tokens to choose from; places 0 and 1 predict with odds 3:1 and 1:1.
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0], [9.0, -9.0]]])
    both = torch.tensor([[IGNORED, 0, 1]])
    assert target_cross_entropy(logits, both).item() == pytest.approx(
        -math.log(3 / 4) - math.log(1 / 2)
    )
    second = torch.tensor([[IGNORED, IGNORED, 1]])
    assert target_cross_entropy(logits, second).item() == pytest.approx(math.log(2))


def test_target_cross_entropy_without_a_target_is_zero_with_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = target_cross_entropy(logits, torch.full((1, 3), IGNORED))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_pairwise_hinge_by_hand() -> None:
    scores = torch.tensor([1.0, 0.95, 2.0])
    pairs = torch.tensor([[0, 1], [0, 2], [2, 1]])
    # 0.1 - 0.05 = 0.05; 0.1 + 1 = 1.1; a gap of 1.05 costs nothing.
    assert pairwise_hinge(scores, pairs).item() == pytest.approx(0.05 + 1.1)
    assert pairwise_hinge(scores, pairs, tau=2.0).item() == pytest.approx(1.95 + 3.0 + 0.95)


def test_pairwise_hinge_pushes_the_better_up_and_the_worse_down() -> None:
    scores = torch.tensor([0.0, 0.0], requires_grad=True)
    pairwise_hinge(scores, torch.tensor([[0, 1]])).backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad.tolist() == [-1.0, 1.0]  # a step against the gradient


@pytest.mark.parametrize("grades", [[2.0], [1.0, 1.0, 1.0]])
def test_pairwise_hinge_without_pairs_is_zero_with_a_gradient(grades: list[float]) -> None:
    scores = torch.zeros(len(grades), requires_grad=True)
    loss = pairwise_hinge(scores, ordered_pairs(torch.tensor(grades)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0] * len(grades)


def test_a_students_loss_goes_by_name() -> None:
    teacher, student = row(2, 0, -1), row(1, 0.5, 0)
    # As above; hinge gaps 0.5, 1 and 0.5 under a margin of 0.75: 0.25, 0 and 0.25.
    expected = {
        "hybrid": 4.5 / 3 + 0.4 * 6.5 / 3,
        "point": 4.5 / 3,
        "margin": 6.5 / 3,
        "mse": 2.25 / 3,
        "hinge": 0.5 / 3,
        "ranknet": (2 * math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1))) / 3,
    }
    assert set(expected) == set(get_args(StudentLoss))
    for name in get_args(StudentLoss):
        loss = student_loss(name, student, teacher, beta=0.4, tau=0.75)
        assert loss.item() == pytest.approx(expected[name]), name


@pytest.mark.parametrize("name", get_args(StudentLoss))
def test_every_loss_is_finite_where_the_teacher_ties_all_or_there_is_one_candidate(
    name: StudentLoss,
) -> None:
    for student, teacher in ((row(1, 2), row(3, 3)), (row(1), row(2))):
        assert math.isfinite(student_loss(name, student, teacher, beta=0.4, tau=0.1).item())


@pytest.mark.parametrize("name", get_args(StudentLoss))
def test_every_loss_raises_the_better_and_lowers_the_worse(name: StudentLoss) -> None:
    student = row(-0.5, 0.5).requires_grad_()
    student_loss(name, student, row(1, -1), beta=0.4, tau=0.1).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    better, worse = student.grad.tolist()
    assert better < 0 < worse
