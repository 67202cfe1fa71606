"""The mean of students' weights is a student of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from service.contract.checkpoint import read_card
from tests.training.toy import write_recipe, write_toy_set
from training.average import average
from training.distill import distill
from training.recipe import AverageRecipe, DistillRecipe, RecipeError, load_recipe


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two toy runs, `a` and `b`, from the same base."""
    folder = tmp_path_factory.mktemp("averaged")
    write_toy_set(folder)
    recipe = load_recipe(write_recipe(folder, epochs=4), DistillRecipe)
    for name, seed in (("a", 1), ("b", 2)):
        other = recipe.model_copy(update={"name": name, "seed": seed})
        distill(other, data=folder, out=folder / "runs")
    return folder


def mean(folder: Path, *parts: tuple[str, float], name: str = "mean") -> Path:
    recipe = AverageRecipe.model_validate(
        {
            "name": name,
            "checkpoints": [
                {"path": folder / "runs" / run / "checkpoint", "weight": weight}
                for run, weight in parts
            ],
            "validation": [{"path": "toy", "split": "val"}],
        }
    )
    return average(recipe, data=folder, out=folder / "runs")


def test_weights_are_averaged_by_their_shares(taught: Path) -> None:
    found = load_file(mean(taught, ("a", 3.0), ("b", 1.0)) / "model.safetensors")
    a, b = (load_file(taught / "runs" / run / "checkpoint" / "model.safetensors") for run in "ab")
    assert set(found) == set(a)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.75 * a[name] + 0.25 * b[name])


def test_the_mean_of_one_student_and_itself_ranks_and_is_calibrated_as_it(taught: Path) -> None:
    card = read_card(mean(taught, ("a", 1.0), ("a", 1.0), name="same"))
    alone = read_card(taught / "runs" / "a" / "checkpoint")
    assert card.metrics["averaged"] == [alone.recipe, alone.recipe]
    assert card.metrics["validation"] == alone.metrics["validation"]
    assert card.score.relevance.scale == pytest.approx(alone.score.relevance.scale, rel=1e-4)
    assert card.score.teachers == alone.score.teachers


def test_a_mean_that_is_there_is_kept_and_another_is_not_put_in_its_place(taught: Path) -> None:
    target = mean(taught, ("a", 1.0), ("b", 1.0), name="kept")
    stamp = (target / "model.safetensors").stat().st_mtime_ns
    assert mean(taught, ("a", 1.0), ("b", 1.0), name="kept") == target
    assert (target / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(RecipeError, match="holds another mean"):
        mean(taught, ("a", 2.0), ("b", 1.0), name="kept")


def test_students_that_do_not_fit_together_are_refused(taught: Path) -> None:
    recipe = load_recipe(write_recipe(taught, epochs=1), DistillRecipe)
    student = recipe.student.model_copy(update={"layers": (0,)})
    small = recipe.model_copy(update={"name": "small", "student": student})
    distill(small, data=taught, out=taught / "runs")
    with pytest.raises(RecipeError, match="has other weights than"):
        mean(taught, ("a", 1.0), ("small", 1.0), name="with-small")
    student = recipe.student.model_copy(update={"max_length": 12})
    short = recipe.model_copy(update={"name": "short", "student": student})
    distill(short, data=taught, out=taught / "runs")
    with pytest.raises(RecipeError, match="different templates or lengths"):
        mean(taught, ("a", 1.0), ("short", 1.0), name="with-short")
    with pytest.raises(RecipeError, match="none/checkpoint is no checkpoint"):
        mean(taught, ("a", 1.0), ("none", 1.0), name="with-none")
