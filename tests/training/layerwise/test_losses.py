"""Layer-wise losses: by hand, in any company, and towards the teacher."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.layerwise.losses import attention_mse, hidden_mse, layer_losses, mapped_layers
from training.layerwise.recipe import LayerwiseRecipe
from training.layerwise.states import States
from training.recipe import RecipeError

NAMES = ("attention", "hidden", "embedding", "score")


def recipe(**weights: float) -> LayerwiseRecipe:
    fields = {
        "name": "any",
        "teacher": "any",
        "train": [{"kind": "judged", "path": "any"}],
        "validation": [{"path": "any"}],
    }
    return LayerwiseRecipe.model_validate(fields | dict.fromkeys(NAMES, 0.0) | weights)


def states(layers: int, *, level: float = 0.0, step: float = 0.0) -> States:
    """Return states of two tokens, two heads and three channels; layer i is level + i · step."""
    values = [level + place * step for place in range(layers + 1)]
    return States(
        torch.full((1, 2, 3), values[0]),
        tuple(torch.full((1, 2, 3), value) for value in values[1:]),
        tuple(torch.full((1, 2, 2, 2), 10 * value) for value in values[1:]),
        torch.tensor([level + step]),
    )


def test_attention_is_compared_between_real_tokens_by_hand() -> None:
    student = torch.tensor([[[[1.0, 2.0, 9.0], [3.0, 4.0, 9.0], [9.0, 9.0, 9.0]]]])  # [1, 1, 3, 3]
    teacher = torch.tensor([[[[0.0, 2.0, 5.0], [3.0, 6.0, 5.0], [5.0, 5.0, 5.0]]]])
    mask = torch.tensor([[1, 1, 0]])
    assert attention_mse(student, teacher, mask).tolist() == pytest.approx([(1 + 4) / 4])


def test_states_are_compared_at_real_tokens_by_hand() -> None:
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])  # [1, 3, 2]
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [5.0, 5.0]]])
    assert hidden_mse(student, teacher, torch.tensor([[1, 1, 0]])).tolist() == pytest.approx(
        [(4 + 9) / 4]
    )


def test_descent_brings_states_and_attention_nearer_to_the_teacher() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    for loss, shape in ((attention_mse, (2, 3, 4, 4)), (hidden_mse, (2, 4, 5))):
        teacher = torch.randn(shape)
        student = torch.randn(shape, requires_grad=True)
        loss(student, teacher, mask).sum().backward()  # type: ignore[no-untyped-call]
        gradient = student.grad
        assert isinstance(gradient, Tensor)
        inside = gradient != 0
        assert torch.equal(torch.sign(gradient)[inside], torch.sign(student - teacher)[inside])
        real = (
            mask[:, None, :, None] * mask[:, None, None, :] if len(shape) == 4 else mask[..., None]
        )
        assert torch.equal(inside, real.bool().expand(shape))  # masked places are left alone


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (12, 6, (1, 3, 5, 7, 9, 11)),
        (12, 4, (2, 5, 8, 11)),
        (6, 3, (1, 3, 5)),
        (3, 3, (0, 1, 2)),
    ],
)
def test_layers_are_mapped_evenly_to_the_last_of_each_stretch(
    teacher: int, student: int, expected: tuple[int, ...]
) -> None:
    assert mapped_layers(teacher, student) == expected


def test_depths_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="5 layers cannot learn evenly from 12"):
        mapped_layers(12, 5)


def test_each_term_by_hand_and_each_layer_from_its_own() -> None:
    mask = torch.ones(1, 2, dtype=torch.long)
    # The student's two layers are 0; the teacher's four are 1 to 4, of which 2 and 4 are learnt.
    student, teacher = states(2), states(4, step=1.0)
    expected = {"attention": 100 * (4 + 16) / 2, "hidden": (4 + 16) / 2, "embedding": 0.0}
    expected["score"] = 1.0
    for name in NAMES:
        found = layer_losses(student, teacher, mask, recipe(**{name: 0.5}))
        assert list(found) == [name]
        assert found[name].tolist() == pytest.approx([0.5 * expected[name]])
    assert set(layer_losses(student, teacher, mask, recipe(**dict.fromkeys(NAMES, 1.0)))) == set(
        NAMES
    )


def test_embeddings_are_compared_with_embeddings() -> None:
    mask = torch.ones(1, 2, dtype=torch.long)
    found = layer_losses(states(2), states(4, level=3.0), mask, recipe(embedding=1.0))
    assert found["embedding"].tolist() == pytest.approx([9.0])


def test_a_recipe_that_teaches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is learnt"):
        recipe()
