"""A small Mistral through all stages to `/rank`; each stage resumed as if never stopped."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from export.__main__ import main as export
from loadtest.server import our_service
from service.contract.checkpoint import read_card
from service.contract.metrics import ndcg
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import RankingExample
from tests.tiny import tiny_base
from tests.training.decoders import scores_by_hand, tiny_mistral, write_clicks, write_nouns_set
from tests.training.kill import ENVIRONMENT, contents, kill_after, saved_step
from training.__main__ import main
from training.data import read_judged, read_labels
from training.recipe import JudgedSet, LabelRecipe, RecipeError
from training.sft import sft
from training.systems import load_system
from training.teacher import load_teacher
from training.teacher_recipes import SftRecipe

VALIDATION = {"kind": "judged", "path": "nouns", "split": "val"}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    tiny_mistral(folder / "base")
    write_clicks(folder / "clicks.jsonl", 400)
    write_clicks(folder / "held.jsonl", 40, seed=1)
    write_nouns_set(folder, queries=40)
    return folder


def cpt_recipe(base: Path, *, steps: int = 30, **fields: Any) -> dict[str, Any]:
    lora = fields.pop("lora", None)
    model = {"base": str(base), "max_length": 48, "max_query_length": 16}
    return {
        "name": "cpt",
        "model": model if lora is None else {**model, "lora": lora},
        "train": {"kind": "files", "paths": ["clicks.jsonl"]},
        "validation": {"kind": "files", "paths": ["held.jsonl"]},
        "steps": steps,
        "block_rows": 64,
        "row_tokens": 64,
        "rows_per_step": 6,
        "rows_per_call": 3,
        "evaluate_every": 10,
        "save_every": 4,
        "optimiser": {"learning_rate": 3e-3},
        **fields,
    }


def sft_recipe(base: Path, *, epochs: int = 8, **fields: Any) -> dict[str, Any]:
    lora = fields.pop("lora", None)
    model = {"base": str(base), "max_length": 32, "max_query_length": 12}
    return {
        "name": "sft",
        "model": model if lora is None else {**model, "lora": lora},
        "train": [{"kind": "judged", "path": "nouns", "split": "train"}],
        "validation": [{"path": "nouns", "split": "val"}],
        "epochs": epochs,
        "groups_per_step": 8,
        "groups_per_call": 4,
        "evaluate_every": 12,
        "save_every": 3,
        "optimiser": {"learning_rate": 2e-3},
        **fields,
    }


def student_of(task: Path) -> dict[str, Any]:
    base = task / "bert"
    return {"base": str(tiny_base(base)), "max_length": 48, "max_query_length": 8}


def toml(path: Path, fields: dict[str, Any]) -> Path:
    """Write a recipe; nested tables inline."""

    def value(found: Any) -> str:
        if isinstance(found, dict):
            return "{" + ", ".join(f"{k} = {value(v)}" for k, v in found.items()) + "}"
        if isinstance(found, list):
            return "[" + ", ".join(map(value, found)) + "]"
        return json.dumps(found)

    path.write_text("".join(f"{k} = {value(v)}\n" for k, v in fields.items()), encoding="utf-8")
    return path


def ranked(url: str, example: RankingExample) -> list[float]:
    """Return the scores that a running service has for the candidates, in their order."""
    texts = [{"title": text.title, "summary": text.summary} for text in example.candidates]
    answer = httpx.post(f"{url}/rank", json={"query": example.query, "candidates": texts})
    results = answer.raise_for_status().json()["results"]
    assert [result["score"] for result in results] == sorted(
        (result["score"] for result in results), reverse=True
    )
    return [result["score"] for result in sorted(results, key=lambda result: result["index"])]


def test_a_small_mistral_teaches_a_student_and_both_are_served(
    task: Path,
) -> None:
    out = task / "pipeline"

    def stage(name: str, fields: dict[str, Any]) -> Path:
        recipe = toml(task / f"{fields['name']}.toml", fields)
        assert main([name, str(recipe), "--data", str(task), "--out", str(out)]) == 0
        return out / str(fields["name"])

    pretrained = stage("cpt", cpt_recipe(task / "base")) / "checkpoint"
    facts = json.loads((pretrained / "cpt.json").read_text())
    losses = [row["held_out_loss"] for row in facts["history"]]
    assert losses[-1] < losses[0] - 0.3
    assert facts["read"]["rows"] > 0
    AutoModelForCausalLM.from_pretrained(pretrained)

    teacher = stage("sft", sft_recipe(pretrained)) / "checkpoint"
    card = read_card(teacher)
    assert card.template == DECODER_TEMPLATE
    assert card.metrics["validation"]["nouns:val"]["ndcg_at_10"][0] > 0.7  # by chance 0.64
    first, *_, last = card.metrics["history"]
    assert last["loss"] < first["loss"] / 2

    labels = {"name": "labels", "teacher": str(teacher), "teacher_kind": "cross-encoder"}
    labelled = stage("label", {**labels, "sources": [VALIDATION]})
    found = [example.teacher_scores for example in read_labels(labelled)]
    examples = read_judged(JudgedSet(path="nouns", split="val"), task)
    expected = scores_by_hand(teacher, examples)
    assert np.std(np.concatenate(expected)) > 0.05
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    system = load_system(teacher)
    for example, row in zip(examples, expected, strict=True):
        np.testing.assert_allclose(system.score(example)[1], row, rtol=1e-4, atol=1e-5)

    student = stage(
        "distill",
        {
            "name": "student",
            "student": student_of(task),
            "train": [{"teacher": "labels", "source": {"kind": "labels", "path": str(labelled)}}],
            "validation": [{"path": "nouns", "split": "val"}],
        },
    )
    assert list(read_card(student / "checkpoint").score.teachers) == [str(teacher)]

    for checkpoint in (teacher, student / "checkpoint"):
        bundle = checkpoint.parent / "bundle"
        fp32 = [] if checkpoint == teacher else ["--precision", "fp32"]
        assert export(["bundle", str(checkpoint), str(bundle), *fp32]) == 0
        by_torch, system = load_system(checkpoint), load_system(bundle)
        with our_service(bundle, "--threads", "1") as server:
            for example in examples:
                logits = by_torch.score(example)[1]
                np.testing.assert_allclose(ranked(server.url, example), logits, atol=1e-4)
                np.testing.assert_allclose(system.score(example)[1], logits, atol=1e-4)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_lora_is_merged_into_a_plain_checkpoint_that_scores_as_its_card_says(
    precision: str, task: Path
) -> None:
    recipe = sft_recipe(
        task / "base", lora={"rank": 8}, precision=precision, epochs=2, gradient_checkpointing=True
    )
    model = recipe["model"] | {"gradient_checkpointing": recipe.pop("gradient_checkpointing")}
    plan = SftRecipe.model_validate(recipe | {"model": model})
    checkpoint = sft(plan, data=task, out=task / f"lora-{precision}")
    weights = load_file(checkpoint / "model.safetensors")
    assert not any("lora" in name for name in weights)
    assert weights["score.weight"].shape == (1, 64)
    labels = LabelRecipe.model_validate(
        {
            "name": "labels",
            "teacher": str(checkpoint),
            "teacher_kind": "cross-encoder",
            "sources": [VALIDATION],
        }
    )
    examples = read_judged(JudgedSet(path="nouns", split="val"), task)
    scores = load_teacher(labels).score(examples)
    found = [
        ndcg(row.grades or (), values, 10) for row, values in zip(examples, scores, strict=True)
    ]
    figures = read_card(checkpoint).metrics["validation"]["nouns:val"]
    assert np.mean(found) == pytest.approx(figures["ndcg_at_10"][0], abs=1e-4)
    trained = load_file(checkpoint.parent / "best" / "model.safetensors")
    assert all("lora_" in name or ".score." in name for name in trained)
    base = load_file(task / "base" / "model.safetensors")
    changed = weights["model.layers.0.self_attn.q_proj.weight"].float()
    assert not torch.equal(changed, base["model.layers.0.self_attn.q_proj.weight"])
    assert torch.equal(
        weights["model.norm.weight"].float(), base["model.norm.weight"].to(torch.float32)
    )


def test_an_adapter_is_written_as_peft_reads_it(task: Path) -> None:
    recipe = SftRecipe.model_validate(
        sft_recipe(task / "base", lora={"rank": 4, "merge": False}, epochs=1)
    )
    checkpoint = sft(recipe, data=task, out=task / "adapter")
    assert (checkpoint / "adapter_model.safetensors").exists()
    assert not (checkpoint / "model.safetensors").exists()
    settings = json.loads((checkpoint / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"]) == (4, str(task / "base"))


@pytest.mark.parametrize("stage", ["cpt", "sft"])
def test_a_stage_that_was_killed_ends_as_the_uninterrupted_one(stage: str, task: Path) -> None:
    fields = (
        cpt_recipe(task / "base", steps=60)
        if stage == "cpt"
        else sft_recipe(task / "base", epochs=16, lora={"rank": 4})
    )
    path = toml(task / f"resume-{stage}.toml", fields)
    data = ["--data", str(task), "--out"]
    assert main([stage, str(path), *data, str(task / "whole")]) == 0
    killed = task / "killed" / stage
    kill_after(random.randint(3, 20), stage, path, task, killed)
    assert 3 <= saved_step(killed) < 60
    assert main([stage, str(path), *data, str(task / "killed")]) == 0
    for part in ("checkpoint", "state", "best"):
        assert contents(killed / part) == contents(task / "whole" / stage / part)


def test_two_processes_train_as_one_does(task: Path) -> None:
    """Real DDP over gloo, started by accelerate: the same steps, whatever the share of each."""
    source = {"kind": "judged", "path": "nouns", "split": "train"}
    student: dict[str, Any] = {
        "name": "distill",
        "student": student_of(task) | {"dropout": 0},
        "rows_per_call": 4,
        "groups_per_step": 7,
        "validation": [{"path": "nouns", "split": "val"}],
    }
    distilled = student | {"train": [{"teacher": "grades", "source": source}]}
    narrow = student["student"] | {"base": str(tiny_base(task / "narrow", layers=1, hidden=32))}
    by_layers = {"teacher": str(student_of(task)["base"]), "train": [source], "student": narrow}
    decoder = sft_recipe(task / "base", epochs=1, groups_per_step=7, groups_per_call=2)
    labels = {"name": "graded", "teacher": str(task / "nouns" / "qrels.tsv")}
    recipe = toml(task / "graded.toml", labels | {"teacher_kind": "scores", "sources": [source]})
    assert main(["label", str(recipe), "--data", str(task), "--out", str(task)]) == 0
    tiers = {"name": "rra_gpt", "train": [{"kind": "labels", "path": str(task / "graded")}]}
    stages = {
        "cpt": cpt_recipe(task / "base", steps=4, rows_per_step=5, rows_per_call=2),
        "sft": decoder,
        "sft-mean": decoder | {"name": "sft-mean", "scorer": "mean"},
        "sft-likelihood": decoder | {"name": "sft-likelihood", "scorer": "likelihood"},
        "rra_gpt": decoder | tiers,
        "distill": distilled,
        "distill-terms": distilled | {"name": "distill-terms", "term_control": {"weight": 1.0}},
        "layerwise": student | {"name": "layerwise"} | by_layers,
        "layerwise-attention": student
        | {"name": "layerwise-attention", "hidden": 0.0, "embedding": 0.0, "score": 0.0}
        | by_layers,
    }
    calls = [
        [
            stage.split("-")[0],
            str(toml(task / f"ddp-{stage}.toml", fields)),
            *("--data", str(task), "--out"),
        ]
        for stage, fields in stages.items()
    ]
    for call in calls:
        assert main([*call, str(task / "one")]) == 0
    script = task / "stages.py"
    head = ["from training.__main__ import main", "from training.loop import start_accelerator"]
    processes = "assert start_accelerator('no').num_processes == 2"
    lines = [f"assert main({[*call, str(task / 'two')]!r}) == 0" for call in calls]
    script.write_text("\n".join([*head, processes, *lines]), encoding="utf-8")
    # accelerate starts several processes for GPUs only; what they then run on, the variable says.
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    plain = [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    found = subprocess.run(
        [sys.executable, "-m", *launch, *plain, str(script)],
        env={**ENVIRONMENT, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    for stage in stages:
        one, two = (task / name / stage / "state" for name in ("one", "two"))
        states = [json.loads((folder / "state.json").read_text()) for folder in (one, two)]
        assert states[0]["step"] == states[1]["step"] > 1
        assert states[0]["position"] == states[1]["position"]
        for left, right in zip(states[0]["history"], states[1]["history"], strict=True):
            assert right["loss"] == pytest.approx(left["loss"], rel=1e-4)
        weights = load_file(two / "model.safetensors")
        for name, values in load_file(one / "model.safetensors").items():
            torch.testing.assert_close(weights[name], values, rtol=1e-3, atol=2e-4)


def test_a_run_logs_for_tensorboard_where_it_is_wanted(task: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator as events

    recipe = SftRecipe.model_validate(sft_recipe(task / "base", epochs=1))
    checkpoint = sft(recipe, data=task, out=task / "logged", tensorboard=True)
    log = events.EventAccumulator(str(checkpoint.parent / "logs"))
    log.Reload()
    assert [event.step for event in log.Scalars("loss")] == [0, 1, 2, 3]
    assert {"gradient_norm", "rate_factor", "validation/ndcg_at_10"} <= set(log.Tags()["scalars"])


def test_queries_without_two_grades_are_counted_and_refused_where_there_are_no_others(
    task: Path,
) -> None:
    recipe = sft_recipe(task / "base")
    recipe["train"][0]["qrels"] = "ones.tsv"
    (task / "nouns" / "ones.tsv").write_text("q1\tq1-0\t1\nq1\tq1-1\t1\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="no training query has two grades"):
        sft(SftRecipe.model_validate(recipe), data=task, out=task / "none")
