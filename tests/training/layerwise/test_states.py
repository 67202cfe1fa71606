"""What is seen of a BERT is what it computes: transformers' own attention and states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertForSequenceClassification

from tests.tiny import tiny_base
from training.layerwise.losses import attention_mse
from training.layerwise.states import states_of
from training.recipe import RecipeError, Student
from training.student import build_student


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("states") / "base", layers=3)


def load(base: Path, **changes: object) -> BertForSequenceClassification:
    spec = Student.model_validate({"base": str(base), "max_length": 40, "max_query_length": 8})
    model, _ = build_student(spec.model_copy(update=changes), seed=0, attention="eager")
    model.train(False)
    return model


@pytest.fixture
def batch() -> dict[str, Tensor]:
    ids = torch.tensor([[2, 9, 3, 11, 12, 3], [2, 8, 3, 13, 3, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]])
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "token_type_ids": segments,
    }


def test_attention_scores_are_those_whose_softmax_the_model_takes(
    base: Path, batch: dict[str, Tensor]
) -> None:
    model = load(base)
    found = states_of(model, batch)
    expected = model(**batch, output_attentions=True, output_hidden_states=True)
    assert len(found.attention) == len(found.hidden) == 3
    masked = batch["attention_mask"][:, None, None, :] == 0
    for scores, probabilities in zip(found.attention, expected.attentions, strict=True):
        taken = scores.masked_fill(masked, float("-inf")).softmax(dim=-1)
        torch.testing.assert_close(taken, probabilities)
    for states, reference in zip(
        (found.embeddings, *found.hidden), expected.hidden_states, strict=True
    ):
        assert torch.equal(states, reference)
    assert torch.equal(found.scores, expected.logits[:, 0])


def test_two_models_differ_in_attention_and_a_model_does_not_from_itself(
    base: Path, batch: dict[str, Tensor]
) -> None:
    model, shallow = load(base), load(base, layers=(2,))
    mask = batch["attention_mask"]
    mine, theirs = states_of(shallow, batch).attention[0], states_of(model, batch).attention[2]
    loss = attention_mse(mine, theirs, mask).sum()
    assert loss > 1e-4
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = shallow.get_parameter("bert.encoder.layer.0.attention.self.key.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    assert attention_mse(theirs, states_of(model, batch).attention[2], mask).sum() == 0


def test_fused_attention_is_refused_instead_of_a_silent_zero(
    base: Path, batch: dict[str, Tensor]
) -> None:
    spec = Student(base=str(base), max_length=40, max_query_length=8)
    fused, _ = build_student(spec, seed=0)
    with pytest.raises(RecipeError, match="computed by 'sdpa'; layers are compared in 'eager'"):
        states_of(fused, batch)


def test_nothing_is_left_of_the_looking(base: Path, batch: dict[str, Tensor]) -> None:
    model = load(base)
    states_of(model, batch)
    assert not any(module._forward_hooks for module in model.modules())
