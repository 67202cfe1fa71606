"""The term-control layer: what it reads, that it teaches the student, and that it is dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertForSequenceClassification

from export.__main__ import main as export
from loadtest.server import our_service
from service.contract.checkpoint import read_card
from service.contract.encoding import TokenPair
from service.contract.types import Candidate
from tests.tiny import tiny_base, tiny_tokenizer
from tests.training.kill import contents, kill_after
from tests.training.test_teacher_training import ranked
from tests.training.toy import write_recipe, write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.distill import distill
from training.recipe import DistillRecipe, JudgedSet, RecipeError, Student, load_recipe
from training.rradistill.term_control import (
    TermControlled,
    excluded_ids,
    score_with_terms,
    select_terms,
)
from training.student import build_student, pair_encoder, score_pairs
from training.student_run import APART
from training.systems import load_system

TEXTS = ("the capital of water", "kettle", "boil the dog in a kettle of water", "")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("terms") / "base", layers=2)


@pytest.fixture
def model(base: Path) -> TermControlled:
    student, tokenizer = build_student(spec(base), seed=0)
    return TermControlled(student, excluded_ids(tokenizer))


def spec(base: Path) -> Student:
    return Student(base=str(base), max_length=40, max_query_length=8, dropout=0.0)


def pairs_of(base: Path, query: str = "boil the water") -> list[TokenPair]:
    _, tokenizer = build_student(spec(base), seed=0)
    candidates = [Candidate(title=text) for text in TEXTS]
    return pair_encoder(tokenizer, spec(base)).encode(query, candidates)


def test_terms_are_the_querys_words_and_the_documents_that_repeat_them() -> None:
    #   [CLS] boil the [SEP] dog boil the water [SEP] [PAD]; "the" and the specials are none
    ids = torch.tensor([[2, 10, 6, 3, 12, 10, 6, 11, 3, 0], [2, 6, 3, 6, 11, 3, 0, 0, 0, 0]])
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]])
    found = select_terms(ids, (ids > 0).long(), segments, torch.tensor([0, 1, 2, 3, 4, 6]))
    assert found.nonzero().tolist() == [[0, 1], [0, 5]]  # the second query has no term at all


def test_specials_and_stop_words_are_no_terms(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path)
    words = tokenizer.convert_ids_to_tokens(excluded_ids(tokenizer).tolist())
    assert {"[CLS]", "[SEP]", "[PAD]", "[UNK]", "the", "of", "and", "to", "in", "is"} <= set(words)
    assert not {"cat", "kettle", "water", "b", "##a"} & set(words)


def test_dropping_the_layer_changes_no_score(base: Path, model: TermControlled) -> None:
    model.train(False)
    pairs = pairs_of(base)
    with torch.inference_mode():
        scores, terms = score_with_terms(model, pairs, rows=2)
        assert torch.equal(scores, score_pairs(model.student, pairs, rows=2))
        assert torch.equal(scores, score_pairs(model, pairs, rows=2))
    assert (scores - terms).abs().min() > 1e-4


def test_a_pairs_terms_are_scored_as_if_alone(base: Path, model: TermControlled) -> None:
    model.train(False)
    pairs = pairs_of(base)
    alone = [score_with_terms(model, [pair], rows=1)[1].item() for pair in pairs]
    for rows in (1, 3, 4):
        assert score_with_terms(model, pairs, rows=rows)[1].tolist() == pytest.approx(
            alone, abs=1e-5
        )
    assert len({round(score, 4) for score in alone}) > 2


def test_what_is_no_term_does_not_reach_the_layer(model: TermControlled) -> None:
    model.train(False)
    states = torch.randn(2, 5, 64)
    selected = torch.tensor([[False, True, False, True, False], [False, False, False, False, True]])
    before = model.term_control(states, selected)
    states[0, 2], states[0, 4], states[1, 1:4] = 7.0, -3.0, 5.0
    torch.testing.assert_close(model.term_control(states, selected), before)
    states[1, 4] += 1.0
    after = model.term_control(states, selected)
    assert after[0].item() == pytest.approx(before[0].item())
    assert abs(after[1].item() - before[1].item()) > 1e-4


def test_the_terms_score_alone_teaches_the_students_encoder(
    base: Path, model: TermControlled
) -> None:
    pairs = pairs_of(base)
    _, terms = score_with_terms(model, pairs, rows=4)
    (terms[1] - terms[0]).backward()  # type: ignore[no-untyped-call]
    gradient = gradient_of(model.student, "bert.encoder.layer.0.output.dense.weight")
    assert gradient.abs().sum() > 0
    assert not gradient_of(model.student, "classifier.weight").any()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad  # type: ignore[misc]
    _, after = score_with_terms(model, pairs, rows=4)
    assert (after[1] - after[0]).item() < (terms[1] - terms[0]).item()


def gradient_of(model: BertForSequenceClassification, name: str) -> Tensor:
    gradient = model.get_parameter(name).grad
    assert gradient is not None
    return gradient


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rra")
    write_toy_set(folder, queries=64)
    recipe = write_recipe(folder, epochs=16, evaluate_every=32, save_every=2)
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text + "\n[term_control]\nweight = 0.5\n", encoding="utf-8")
    distill(load_recipe(recipe, DistillRecipe), data=folder, out=folder / "whole")
    return folder


def test_a_taught_student_is_a_plain_checkpoint_and_its_layer_lies_beside_it(task: Path) -> None:
    folder = task / "whole" / "toy"
    card = read_card(folder / "checkpoint")
    assert card.metrics["validation"]["toy:val"]["ndcg_at_10"][0] > 0.9  # by chance 0.53
    names = load_file(folder / "checkpoint" / "model.safetensors").keys()
    assert names == load_file(task / "base" / "model.safetensors").keys()
    apart = load_file(folder / APART)
    assert apart
    assert all(name.startswith("term_control.") for name in apart)


def test_what_is_exported_is_served_without_the_layer(task: Path) -> None:
    checkpoint = task / "whole" / "toy" / "checkpoint"
    bundle = task / "bundle"
    assert export(["bundle", str(checkpoint), str(bundle), "--precision", "fp32"]) == 0
    system = load_system(checkpoint)
    with our_service(bundle, "--threads", "1") as server:
        for example in read_judged(JudgedSet(path="toy", split="val"), task)[:4]:
            logits = system.score(example)[1]
            np.testing.assert_allclose(ranked(server.url, example), logits, atol=1e-4)


def test_a_run_killed_and_started_again_ends_as_the_uninterrupted_one(task: Path) -> None:
    path = task / "recipe.toml"
    kill_after(6, "distill", path, task, task / "again" / "toy")
    assert main(["distill", str(path), "--data", str(task), "--out", str(task / "again")]) == 0
    for name in ("checkpoint", "state"):
        assert contents(task / "again" / "toy" / name) == contents(task / "whole" / "toy" / name)
    found, expected = (task / out / "toy" / APART for out in ("again", "whole"))
    assert found.read_bytes() == expected.read_bytes()


def test_a_weight_of_nothing_is_refused(task: Path, tmp_path: Path) -> None:
    text = (task / "recipe.toml").read_text(encoding="utf-8").replace("weight = 0.5", "weight = 0")
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"term_control.weight: .*greater than 0"):
        load_recipe(tmp_path / "recipe.toml", DistillRecipe)
