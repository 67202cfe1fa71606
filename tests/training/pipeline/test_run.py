"""A pipeline run for real: skipped, changed, killed and stopped; its report against `evaluate`.

Steps run in this process where nothing is killed: loading torch takes seconds in each new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from export.__main__ import main as export
from service.contract.bundle import Bundle
from tests.training.kill import ENVIRONMENT, contents, saved_step
from tests.training.pipeline.toy import (
    HELD_OUT,
    TRAIN,
    bundle,
    student,
    write_pipeline,
    write_task,
)
from training.__main__ import main
from training.distill import distill
from training.pipeline.pipeline import Pipeline
from training.pipeline.run import StepError, run
from training.recipe import DistillRecipe, RecipeError, load_recipe

PATIENCE_S = 300


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path)


def load(task: Path) -> Pipeline:
    return Pipeline.load(task / "exp.toml", data=task / "data", out=task / "runs")


def here(command: Sequence[str], log: Path, *, keep: int) -> int:
    """Run a step's command in this process."""
    package, *arguments = command[2:]
    return {"training": main, "export": export}[package](arguments)


def call_of(task: Path, *more: str) -> list[str]:
    where = ["--data", str(task / "data"), "--out", str(task / "runs")]
    return ["pipeline", str(task / "exp.toml"), *where, *more]


def start(task: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", *call_of(task)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_step(process: subprocess.Popen[bytes], run_folder: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while saved_step(run_folder) < step:
        assert process.poll() is None, "the pipeline ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def marks(task: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (task / "runs/exp/stages").glob("*.json")}


def test_from_nothing_to_a_bundle_and_a_report(task: Path) -> None:
    clicks = {"kind": "judged", "source": TRAIN}
    held_out = {"kind": "judged", "source": {"kind": "judged", **HELD_OUT}}
    decoder = {"max_length": 48, "max_query_length": 16}
    sizes = {"vocabulary": 512, "hidden": 32, "layers": 2, "positions": 64}
    pretraining = {"steps": 6, "row_tokens": 64, "evaluate_every": 3}
    of_labels = {"kind": "labels", "path": "{labels}"}
    write_pipeline(
        task,
        {"stage": "scratch", "set": {"seed": 1, "texts": [clicks], **sizes}},
        {
            "stage": "cpt",
            "set": {
                "seed": 1,
                "model": {"base": "{scratch}", **decoder},
                "train": clicks,
                "validation": held_out,
                **pretraining,
            },
        },
        {
            "stage": "sft",
            "set": {
                "seed": 1,
                "model": {"base": "{cpt}", **decoder},
                "train": [TRAIN],
                "validation": [HELD_OUT],
                "evaluate_every": 2,
            },
        },
        {
            "stage": "label",
            "name": "labels",
            "set": {"teacher": "{sft}", "teacher_kind": "cross-encoder", "sources": [TRAIN]},
        },
        student(train=[{"teacher": "labels", "source": of_labels}], epochs=1),
        bundle("{student}"),
        bundle("{sft}", "teacher"),
        {
            "stage": "latency",
            "arguments": ["--sizes", "small", "--rounds", "1", "--batch", "1", "--length", "8"],
        },
        seeds=[1, 2],
        report={"recipe": "sets.toml", "systems": ["student", "sft"], "scores": ["sft", "student"]},
    )
    run(load(task), start=here)
    folder = task / "runs" / "exp"
    for seed in (1, 2):
        assert Bundle.open(folder / f"bundle-{seed}").manifest.name == f"bundle-{seed}"
    report = (folder / "report" / "report.md").read_text()
    assert "10 of 10 steps finished" in report
    assert "| bundle-2 |" in report
    assert "| teacher |" in report
    assert "of the floor" in report
    assert "chosen and calibrated by these very queries" in report
    assert "| sft / student-1 |" in report  # in the order of `scores`: PSI refers to the first
    assert "![loss and validation figure by step](curves.png)" in report
    page = (folder / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    # A system of one seed has the figures that `training evaluate` gives it.
    found = task / "figures.json"
    model = ["--model", str(folder / "sft" / "checkpoint"), "--json", str(found)]
    assert main(["evaluate", str(task / "sets.toml"), "--data", str(task / "data"), *model]) == 0
    (figures,) = json.loads(found.read_text()).values()
    row = next(line for line in report.splitlines() if line.startswith("| sft | 1 |"))
    for name in ("ndcg_at_5", "ndcg_at_10", "mrr_at_10", "pairwise_accuracy"):
        value, low, high = figures[name]
        assert f" {value:.4f}<br><small>[{low:.4f}, {high:.4f}]</small> " in row


def test_a_pipeline_killed_at_any_moment_goes_on_inside_the_stage(task: Path) -> None:
    write_pipeline(task, student(epochs=6))
    folder = task / "runs" / "exp" / "student"
    for step in (2, random.randint(6, 20)):
        process = start(task)
        wait_for_step(process, folder, step)
        process.kill()  # not its stage, which holds the lock until it ends
        process.communicate()
    run(load(task), start=here)
    recipe = load_recipe(task / "runs/exp/stages/student.toml", DistillRecipe)
    whole = distill(recipe, data=task / "data", out=task / "uninterrupted")
    assert contents(folder / "checkpoint") == contents(whole)


def test_what_is_finished_is_skipped_until_something_it_is_made_of_changes(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pipeline(task, student(), bundle("{student}"))
    run(load(task), start=here)
    before = marks(task)
    run(load(task), start=here)
    assert capsys.readouterr().err.count("finished before") == 2
    assert marks(task) == before

    write_pipeline(task, student(epochs=1), bundle("{student}"))
    assert main(call_of(task, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "student: to do again from the start (its recipe changed)" in shown
    assert "bundle: to do again from the start (what it reads changed)" in shown
    run(load(task), start=here)
    said = capsys.readouterr().err
    assert "student: its recipe changed, so it is done again from the start" in said
    assert "bundle: student changed, so it is done again from the start" in said
    card = json.loads((task / "runs/exp/student/checkpoint/disranker.json").read_text())
    assert card["metrics"]["steps"] == 4
    assert Bundle.open(task / "runs/exp/bundle").manifest.training["epochs"] == 1


def test_other_data_means_another_outcome(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pipeline(task, student(epochs=1))
    run(load(task), start=here)
    qrels = task / "data" / "nouns" / "qrels.tsv"
    qrels.write_text(qrels.read_text().replace("q1\tq1-0\t0", "q1\tq1-0\t2"))
    run(load(task), start=here)
    assert "student: its data changed, so it is done again" in capsys.readouterr().err


def test_a_failing_stage_stops_the_pipeline_and_says_where_its_log_is(
    task: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = student("broken", optimiser={"learning_rate": 1e30})
    write_pipeline(task, broken, student("never"))
    assert main(call_of(task)) == 1
    log = task / "runs/exp/stages/broken.log"
    assert f"error: broken ended with status 2; its log is {log}" in capfd.readouterr().err
    assert "lower the learning rate" in log.read_text()
    assert not (task / "runs/exp/never").exists()


def test_a_stage_ended_by_a_signal_is_told_as_such(task: Path) -> None:
    def killed(command: Sequence[str], log: Path, *, keep: int) -> int:
        return -signal.SIGKILL

    write_pipeline(task, student())
    with pytest.raises(StepError, match="student ended with signal 9; its log is"):
        run(load(task), start=killed)


def test_ctrl_c_stops_the_stage_in_one_line(task: Path) -> None:
    write_pipeline(task, student(epochs=100))
    process = start(task)
    folder = task / "runs" / "exp" / "student"
    wait_for_step(process, folder, 2)
    os.killpg(process.pid, signal.SIGINT)  # to both, as a terminal does
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert process.returncode == 130
    assert said.endswith("stopped; the same command goes on from there\n")
    assert said.count("stopped") == 1
    assert 2 <= saved_step(folder) < 400


def test_a_report_tells_what_is_still_to_come_and_scores_a_system_once(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = task / "base.run"
    lines = [f"q{n} Q0 q{n}-{place} 0 {-place} base\n" for n in (0, 5) for place in (0, 1)]
    base.write_text("".join(lines))
    systems = ["student", str(base), "bm25"]
    report = {"recipe": "sets.toml", "systems": systems, "figures": ["pnr"]}
    write_pipeline(task, student(epochs=1), report=report)
    run(load(task), start=here)
    # Its scores are known, so that nobody asks for its weights.
    (task / "runs/exp/student/checkpoint/model.safetensors").unlink()
    report["systems"] = [*systems, "other"]
    write_pipeline(task, student(epochs=1), student("other"), report=report)
    capsys.readouterr()
    assert main(call_of(task, "--report-only")) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    text = (page.parent / "report.md").read_text()
    assert "1 of 2 steps finished" in text
    assert "Still to come: other." in text
    assert "| student | 1 |" in text
    assert f"| {base} | 1 |" in text
    assert "| bm25 | 1 |" in text
    assert "nDCG@5" not in text


def test_two_reports_at_a_time_are_one_after_the_other(task: Path) -> None:
    report = {"recipe": "sets.toml", "systems": ["student", "bm25"], "figures": ["pnr"]}
    write_pipeline(task, student(epochs=1), report=report)
    pipeline = load(task)
    run(pipeline, start=here)
    folder = task / "runs/exp"
    command = [sys.executable, "-m", "training", *call_of(task, "--report-only")]
    with (folder / "stages/report.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another report has it
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        assert "waiting for another report of it" in waiting.stderr.readline()
        shutil.rmtree(folder / "report")
    told = waiting.communicate(timeout=PATIENCE_S)[1]
    assert waiting.returncode == 0, told
    assert (folder / "report/report.md").is_file()


def test_a_run_that_was_made_alone_is_taken_over(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pipeline(task, student(epochs=1), bundle("{student}"))
    run(load(task), start=here)
    card = task / "runs/exp/student/checkpoint/disranker.json"
    fields = json.loads(card.read_text())
    del fields["recipe"]["beta"]  # as if it had been made before there was such a field
    for name, taken in (("disranker.json", True), ("gone.json", False)):
        shutil.rmtree(task / "runs/exp/stages")
        card.unlink(missing_ok=True)
        card.with_name(name).write_text(json.dumps(fields))
        capsys.readouterr()
        assert main(call_of(task, "--dry-run")) == 0
        assert ("student: there already, taken over" in capsys.readouterr().out) is taken
        run(load(task), start=here)
        assert ("student: there already with this recipe" in capsys.readouterr().err) is taken


def test_what_was_made_before_the_stage_it_reads_is_not_taken_over(task: Path) -> None:
    labels = {
        "stage": "label",
        "set": {"teacher": "{student}", "teacher_kind": "cross-encoder", "sources": [TRAIN]},
    }
    write_pipeline(task, student(epochs=1), labels)
    run(load(task), start=here)
    folder = task / "runs/exp"
    shutil.rmtree(folder / "stages")

    def standing() -> str:
        pipeline = load(task)
        first, second = pipeline.steps
        mark = pipeline.standing(first, {}).mark
        assert mark is not None
        return pipeline.standing(second, {first.name: mark}).state

    assert standing() == "found"
    for name, made in (("student/checkpoint/disranker.json", 2000), ("label/labels.json", 1000)):
        os.utime(folder / name, (made, made))
    assert standing() == "new"


def test_restart_throws_only_a_pipeline_s_folder_away(task: Path) -> None:
    write_pipeline(task, student(epochs=1))
    folder = task / "runs" / "exp"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(RecipeError, match="is no pipeline's folder"):
        run(load(task), restart=True, start=here)
    assert (folder / "thesis.txt").exists()
    run(load(task), start=here)
    run(load(task), restart=True, start=here)
    assert not (folder / "thesis.txt").exists()
    assert (folder / "student" / "checkpoint").exists()
