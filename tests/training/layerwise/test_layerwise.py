"""Layer-wise distillation of toys: LM and ranker, narrow or not, resumed, exported, served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from export.__main__ import main as export
from loadtest.server import our_service
from service.contract.checkpoint import read_card
from tests.tiny import tiny_base
from tests.training.kill import contents, kill_after
from tests.training.test_teacher_training import ranked
from tests.training.toy import write_recipe, write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.distill import distill
from training.layerwise.layerwise import (
    layerwise,
    load_teacher,
    read_pairs,
    step_parts,
    untaught,
)
from training.layerwise.projected import Projected
from training.layerwise.recipe import LayerwiseRecipe
from training.recipe import DistillRecipe, JudgedSet, RecipeError, load_recipe
from training.student_run import APART, Pupil
from training.systems import load_system
from training.taught import Lessons

TRAIN = {"kind": "judged", "path": "toy", "split": "train"}
VALIDATION = {"path": "toy", "split": "val"}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data, a base of four layers and a ranker made of it."""
    folder = tmp_path_factory.mktemp("layerwise")
    write_toy_set(folder, queries=48)
    tiny_base(folder / "base", layers=4)
    recipe = load_recipe(write_recipe(folder, epochs=14, evaluate_every=70), DistillRecipe)
    distill(recipe, data=folder, out=folder / "runs")
    return folder


def fields(task: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return a recipe of ranker distillation from four layers into two of them."""
    ranker = str(task / "runs" / "toy" / "checkpoint")
    lengths = {"max_length": 16, "max_query_length": 4, "dropout": 0.0}
    found = {
        "name": name,
        "seed": 3,
        "teacher": ranker,
        "student": {"base": ranker, "layers": [1, 3], **lengths},
        "train": [TRAIN],
        "validation": [VALIDATION],
        "epochs": 12,
        "group_size": 6,
        "rows_per_call": 48,
        "evaluate_every": 30,
        "save_every": 4,
        "optimiser": {"learning_rate": 3e-3},
    }
    student = found["student"] | changes.pop("student", {})
    return found | {"student": student} | changes


def lm(task: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return a recipe of LM distillation: from the base, without a score."""
    base = str(task / "base")
    changes["student"] = {"base": base} | changes.get("student", {})
    return fields(task, name, **{"teacher": base, "score": 0.0} | changes)


def run(task: Path, recipe: dict[str, Any], out: str = "runs") -> Path:
    return layerwise(LayerwiseRecipe.model_validate(recipe), data=task, out=task / out)


def rows_of(checkpoint: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = read_card(checkpoint).metrics["history"]
    return rows


def test_a_ranker_of_half_the_layers_ranks_as_its_teacher_and_is_served(task: Path) -> None:
    checkpoint = run(task, fields(task, "ranker", epochs=24, evaluate_every=60))
    first, *_, last = rows_of(checkpoint)
    assert last["held_out_loss"] < first["held_out_loss"]
    card, teacher = read_card(checkpoint), read_card(task / "runs" / "toy" / "checkpoint")
    assert card.metrics["validation"]["toy:val"]["ndcg_at_10"][0] > 0.9  # by chance 0.53
    assert card.score.teachers == teacher.score.teachers
    bundle = task / "runs" / "ranker" / "bundle"
    assert export(["bundle", str(checkpoint), str(bundle), "--precision", "fp32"]) == 0
    system = load_system(checkpoint)
    with our_service(bundle, "--threads", "1") as server:
        for example in read_judged(JudgedSet(path="toy", split="val"), task):
            logits = system.score(example)[1]
            np.testing.assert_allclose(ranked(server.url, example), logits, atol=1e-4)


def test_lm_distillation_nears_the_base_and_leaves_the_head_alone(task: Path) -> None:
    checkpoint = run(task, lm(task, "lm"))
    first, *_, last = rows_of(checkpoint)
    assert last["held_out_loss"] < first["held_out_loss"] / 1.3
    assert "ndcg_at_10" not in last
    assert "validation" not in read_card(checkpoint).metrics
    found, base = (load_file(path / "model.safetensors") for path in (checkpoint, task / "base"))
    assert torch.equal(found["bert.pooler.dense.weight"], base["bert.pooler.dense.weight"])
    assert torch.equal(found["classifier.weight"], base["classifier.weight"])


def test_what_lm_distillation_wrote_is_fine_tuned_by_distill(task: Path) -> None:
    checkpoint = run(task, lm(task, "lm-base", epochs=1))
    recipe = load_recipe(task / "recipe.toml", DistillRecipe)
    student = recipe.student.model_copy(update={"base": str(checkpoint)})
    tuned = recipe.model_copy(update={"name": "tuned", "student": student, "epochs": 20})
    card = read_card(distill(tuned, data=task, out=task / "runs"))
    assert card.metrics["validation"]["toy:val"]["ndcg_at_10"][0] > 0.9


def test_projections_of_a_narrow_student_lie_beside_its_checkpoint(task: Path) -> None:
    narrow = tiny_base(task / "narrow", hidden=32)
    recipe = fields(task, "narrowed", student={"base": str(narrow), "layers": [0, 1]}, epochs=2)
    checkpoint = run(task, recipe)
    apart = load_file(checkpoint.parent / APART)
    assert {name: tuple(weight.shape) for name, weight in apart.items()} == {
        "projections.embeddings.weight": (64, 32),
        "projections.hidden.weight": (64, 32),
    }
    assert load_file(checkpoint / "model.safetensors").keys() == (
        load_file(narrow / "model.safetensors").keys()
    )
    assert load_system(checkpoint).score(read_judged(JudgedSet(path="toy"), task)[0])[1].std() > 0
    alone = run(task, recipe | {"name": "narrow-hidden", "epochs": 1, "embedding": 0.0})
    assert list(load_file(alone.parent / APART)) == ["projections.hidden.weight"]


def test_without_projections_nothing_lies_beside_the_checkpoint(task: Path) -> None:
    checkpoint = run(task, fields(task, "equal", epochs=1))
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["checkpoint", "state"]


def test_a_run_killed_and_started_again_ends_as_the_uninterrupted_one(task: Path) -> None:
    narrow = tiny_base(task / "narrow", hidden=32)
    recipe = fields(task, "killed", student={"base": str(narrow), "layers": [0, 1]}, save_every=2)
    whole = run(task, recipe, "uninterrupted")
    path = task / "killed.toml"
    path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
    kill_after(6, "layerwise", path, task, task / "again" / "killed")
    assert main(["layerwise", str(path), "--data", str(task), "--out", str(task / "again")]) == 0
    again = task / "again" / "killed"
    assert contents(again / "checkpoint") == contents(whole)
    assert contents(again / "state") == contents(whole.parent / "state")
    assert (again / APART).read_bytes() == (whole.parent / APART).read_bytes()


def test_a_steps_loss_and_gradient_do_not_depend_on_its_calls(task: Path) -> None:
    found = []
    for rows in (5, 48):
        recipe = LayerwiseRecipe.model_validate(fields(task, "any", rows_per_call=rows))
        pupil = Pupil.load(recipe, task, attention="eager")
        teacher, _ = load_teacher(recipe)
        lessons = Lessons(read_pairs(recipe, task, pupil.encoder), recipe)
        model = Projected(pupil.model, width=64, recipe=recipe)
        parts = step_parts(0, lessons, pupil.encoder, teacher, recipe, Accelerator())
        assert len(parts) == -(-48 // rows)
        total = torch.stack([part(model) for part in parts]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        name = "bert.encoder.layer.0.attention.self.query.weight"
        gradient = pupil.model.get_parameter(name).grad
        assert gradient is not None
        found.append((total.item(), gradient))
    (loss, gradient), (other, whole) = found
    assert loss == pytest.approx(other, rel=1e-5)
    torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "terms",
    [
        *([name] for name in ("attention", "hidden", "embedding", "score")),
        ["attention", "embedding"],
        ["hidden", "embedding"],
    ],
)
def test_what_a_loss_does_not_reach_is_frozen_and_nothing_else(
    terms: list[str], frozen: bool, task: Path
) -> None:
    weights = {name: float(name in terms) for name in ("attention", "hidden", "embedding", "score")}
    student = {"freeze_embeddings": frozen}
    recipe = LayerwiseRecipe.model_validate(fields(task, "any", student=student, **weights))
    pupil = Pupil.load(recipe, task, attention="eager")
    teacher, _ = load_teacher(recipe)
    lessons = Lessons(read_pairs(recipe, task, pupil.encoder), recipe)
    for name in untaught(recipe, pupil.model.config.num_hidden_layers):
        pupil.model.get_submodule(name).requires_grad_(False)
    model = Projected(pupil.model, width=64, recipe=recipe)
    part, *_ = step_parts(0, lessons, pupil.encoder, teacher, recipe, Accelerator())
    part(model).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"layers": [0, 1, 2]}}, "3 layers cannot learn evenly from 4"),
        ({"teacher": "absent"}, "'absent' cannot be loaded"),
    ],
)
def test_a_student_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, task: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(task, fields(task, "refused", **changes))
    assert not (task / "runs" / "refused").exists()


def test_other_heads_are_refused_unless_attention_is_off(task: Path) -> None:
    heads = tiny_base(task / "heads", heads=4)
    student = {"base": str(heads), "layers": [0, 1]}
    with pytest.raises(RecipeError, match="has 4 attention heads, its teacher 2; set attention"):
        run(task, fields(task, "heads", student=student, epochs=1))
    run(task, fields(task, "heads", student=student, epochs=1, attention=0.0))


def test_another_vocabulary_is_refused(task: Path) -> None:
    other = tiny_base(task / "words")
    vocabulary = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(vocabulary.replace('"kettle"', '"kettles"'))
    with pytest.raises(RecipeError, match="has another vocabulary than the student"):
        run(task, fields(task, "words", student={"base": str(other), "layers": [0, 1]}))


def test_a_teacher_without_a_score_is_refused_where_it_is_to_be_learnt(task: Path) -> None:
    teacher = tiny_base(task / "headless", layers=4)
    config = (teacher / "config.json").read_text(encoding="utf-8")
    (teacher / "config.json").write_text(
        config.replace("BertForSequenceClassification", "BertModel")
    )
    with pytest.raises(RecipeError, match="is BertModel, which has no score"):
        run(task, fields(task, "headless", teacher=str(teacher)))
