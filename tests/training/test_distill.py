"""Distillation of a toy student: it learns, keeps its best, and says what is wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from sentence_transformers import CrossEncoder

from service.contract.checkpoint import VALIDATION, Card, read_card
from service.contract.examples import read_examples, write_examples
from service.contract.metrics import ndcg
from service.contract.template import document_text
from tests.training.sets import write_tsv
from tests.training.toy import write_recipe, write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.distill import distill
from training.recipe import (
    DistillRecipe,
    Examples,
    JudgedSet,
    RecipeError,
    TrainSource,
    load_recipe,
)


def run(folder: Path, **changes: Any) -> Path:
    """Distil the toy student and return its checkpoint."""
    recipe = load_recipe(write_recipe(folder, **changes), DistillRecipe)
    return distill(recipe, data=folder, out=folder / "runs")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole toy run; its checkpoint is in runs/toy/checkpoint."""
    folder = tmp_path_factory.mktemp("taught")
    write_toy_set(folder, queries=64)
    run(folder, epochs=13, evaluate_every=26, save_every=100)
    return folder


def card_of(folder: Path) -> Card:
    return read_card(folder / "runs" / "toy" / "checkpoint")


def test_the_student_learns_its_task(taught: Path) -> None:
    history = card_of(taught).metrics["history"]
    assert [row["step"] for row in history] == [26, 52, 78]
    assert history[0]["ndcg_at_10"] < 0.6  # by chance 0.53
    assert history[-1]["ndcg_at_10"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"] / 2


def test_the_checkpoint_ranks_as_its_card_says_in_sentence_transformers(taught: Path) -> None:
    checkpoint = taught / "runs" / "toy" / "checkpoint"
    model = CrossEncoder(str(checkpoint), device="cpu")
    examples = read_judged(JudgedSet(path="toy", split="val"), taught)
    found, relevant = [], []
    for example in examples:
        texts = [document_text(candidate) for candidate in example.candidates]
        scores = model.predict([(example.query, text) for text in texts])
        grades = example.grades or ()
        found.append(ndcg(grades, scores, 10))
        relevant.append(float(scores[grades.index(1)]))
    figures = card_of(taught).metrics["validation"]["toy:val"]
    assert figures["queries"] == len(examples) == 16
    assert sum(found) / len(found) == pytest.approx(figures["ndcg_at_10"][0], abs=1e-4)
    assert read_examples(checkpoint / VALIDATION) == examples
    # On the teacher's standardised scale a grade of 1 is (1 - 1/6) / sqrt(5/36) = 2.24.
    assert sum(relevant) / len(relevant) == pytest.approx(2.24, abs=0.7)


def test_frozen_embeddings_stay_and_are_in_the_checkpoint(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=32)
    recipe = load_recipe(write_recipe(tmp_path, epochs=1), DistillRecipe)
    student = recipe.student.model_copy(update={"freeze_embeddings": True})
    frozen = recipe.model_copy(update={"name": "frozen", "student": student})
    checkpoint = distill(frozen, data=tmp_path, out=tmp_path / "runs")
    name = "bert.embeddings.word_embeddings.weight"
    found = load_file(checkpoint / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    assert torch.equal(found[name], base[name])
    moved = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(found[moved], base[moved])
    assert CrossEncoder(str(checkpoint), device="cpu").predict([("a", "b")]).shape == (1,)


def test_the_card_carries_teacher_scale_relevance_and_recipe(taught: Path) -> None:
    card = card_of(taught)
    (scale,) = card.score.teachers.values()
    assert scale.mean == pytest.approx(1 / 6)  # one of six documents is relevant
    assert scale.std == pytest.approx((5 / 36) ** 0.5)
    relevance = card.score.relevance
    good, bad = ((grade - scale.mean) / scale.std for grade in (1, 0))
    assert relevance.scale * good + relevance.offset > 0 > relevance.scale * bad + relevance.offset
    assert DistillRecipe.model_validate(card.recipe) == load_recipe(
        taught / "recipe.toml", DistillRecipe
    )
    assert (card.max_length, card.max_query_length) == (16, 4)


def test_a_finished_run_finishes_again_to_the_same_bytes(taught: Path) -> None:
    checkpoint = taught / "runs" / "toy" / "checkpoint"
    before = digests(checkpoint)
    recipe = load_recipe(taught / "recipe.toml", DistillRecipe)
    assert distill(recipe, data=taught, out=taught / "runs") == checkpoint
    assert digests(checkpoint) == before


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_the_state_of_another_recipe_is_refused_and_restart_replaces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy_set(tmp_path, queries=12)
    run(tmp_path, epochs=1)
    path = write_recipe(tmp_path, epochs=2)
    arguments = ["distill", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "runs")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"error: {tmp_path / 'runs' / 'toy'} holds a run of another recipe" in message
    assert "Traceback" not in message
    assert main([*arguments, "--restart"]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'runs' / 'toy' / 'checkpoint'}\n")


@pytest.mark.parametrize("mistake", ["data", "student"])
def test_restart_with_a_wrong_input_keeps_the_old_run(mistake: str, tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    checkpoint = run(tmp_path, epochs=1)
    before = digests(checkpoint) | digests(checkpoint.parent / "state")
    recipe = load_recipe(tmp_path / "recipe.toml", DistillRecipe)
    if mistake == "student":
        (tmp_path / "base" / "model.safetensors").write_bytes(b"damaged")
    data = tmp_path / "absent" if mistake == "data" else tmp_path
    with pytest.raises(RecipeError, match=r"is --data right|cannot be loaded"):
        distill(recipe, data=data, out=tmp_path / "runs", restart=True)
    assert digests(checkpoint) | digests(checkpoint.parent / "state") == before


def test_the_state_of_a_base_that_was_trained_anew_is_refused(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    run(tmp_path, epochs=1)
    recipe = load_recipe(tmp_path / "recipe.toml", DistillRecipe)
    weights = Path(recipe.student.base) / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(RecipeError, match="another recipe, base or other data"):
        distill(recipe, data=tmp_path, out=tmp_path / "runs")


def test_the_state_of_other_data_is_refused(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    run(tmp_path, epochs=1)
    write_toy_set(tmp_path, queries=14)
    with pytest.raises(RecipeError, match="another recipe, base or other data"):
        run(tmp_path, epochs=1)


def test_a_diverging_run_stops_with_a_clear_error(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    with pytest.raises(RecipeError, match=r"step \d+: the loss is (nan|inf); lower the learning"):
        run(tmp_path, learning_rate=1e20, evaluate_every=100)


def test_a_run_that_diverged_is_not_evaluated(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    with pytest.raises(RecipeError, match="scores are not finite; lower the learning rate"):
        run(tmp_path, learning_rate=1e30, evaluate_every=1)
    assert not (tmp_path / "runs" / "toy" / "checkpoint").exists()


def test_grades_that_are_all_alike_still_train(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=8)
    rows = (tmp_path / "toy" / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    write_tsv(tmp_path / "toy" / "qrels.tsv", *[(*row.split("\t")[:2], 2) for row in rows])
    card = read_card(run(tmp_path, epochs=1))
    assert card.score.teachers["grades:toy"].std == 1.0
    assert card.metrics["history"][-1]["loss"] < 10


def test_a_student_without_a_usable_base_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_toy_set(tmp_path, queries=8)
    path = write_recipe(tmp_path)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"damaged")
    assert main(["distill", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "r")]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["label", "distill", "evaluate"])
def test_a_bad_recipe_is_one_line_and_exit_code_2(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("epoch = 1\n", encoding="utf-8")
    extra = ["--model", "absent"] if stage == "evaluate" else []
    assert main([stage, str(path), "--data", str(tmp_path), *extra]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}: ")
    assert message.count("\n") == 1


def test_missing_data_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path)
    assert main(["distill", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "r")]) == 2
    message = capsys.readouterr().err
    assert message == f"error: {tmp_path / 'toy' / 'queries.tsv'}: no such file; is --data right?\n"


def test_evaluate_reports_a_checkpoint(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sets.toml"
    path.write_text('[[sets]]\npath = "toy"\nsplit = "val"\n', encoding="utf-8")
    model = taught / "runs" / "toy" / "checkpoint"
    arguments = ["evaluate", str(path), "--data", str(taught), "--model", str(model)]
    assert main([*arguments, "--json", str(tmp_path / "found.json")]) == 0
    assert "| toy val | toy torch | 16 |" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["toy val / toy torch"] == card_of(taught).metrics["validation"]["toy:val"]


@pytest.mark.parametrize("model", [".", "absent"])
def test_evaluate_refuses_what_is_no_model(
    model: str, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sets.toml"
    path.write_text('[[sets]]\npath = "toy"\n', encoding="utf-8")
    folder = tmp_path / model
    arguments = ["evaluate", str(path), "--data", str(taught), "--model", str(folder)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {folder} is no checkpoint or bundle\n"


def test_the_kept_weights_are_finished_not_the_last_ones(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=12)
    checkpoint = run(tmp_path, epochs=1)
    best = (tmp_path / "base" / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(best)
    run(tmp_path, epochs=1)
    found, expected = load_file(checkpoint / "model.safetensors"), load(best)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].equal(weight), name


def test_differently_graded_files_have_scales_of_their_own(tmp_path: Path) -> None:
    write_toy_set(tmp_path)
    judged = read_judged(JudgedSet(path="toy", split="train"), tmp_path)
    high = [replace(row, grades=tuple(100 * grade for grade in row.grades or ())) for row in judged]
    write_examples(tmp_path / "low.jsonl", judged)
    write_examples(tmp_path / "high.jsonl", high)
    recipe = load_recipe(write_recipe(tmp_path, epochs=1), DistillRecipe)
    train = tuple(
        TrainSource(teacher="grades", source=Examples(path=name))
        for name in ("low.jsonl", "high.jsonl")
    )
    mixed = recipe.model_copy(update={"name": "mixed", "train": train})
    card = read_card(distill(mixed, data=tmp_path, out=tmp_path / "runs"))
    low, high_scale = (card.score.teachers[f"grades:{name}.jsonl"] for name in ("low", "high"))
    assert high_scale.mean == pytest.approx(100 * low.mean)
    assert high_scale.std == pytest.approx(100 * low.std)
