"""A pipeline's plan: every recipe whole and checked before anything runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.training.pipeline.toy import bundle, student, write_pipeline, write_task, write_toml
from training.__main__ import main
from training.pipeline.marks import Mark
from training.pipeline.pipeline import Pipeline
from training.pipeline.plan import Step
from training.pipeline.scored import arms_of
from training.recipe import RecipeError

QUERIES = [{"kind": "judged", "path": "nouns"}]
BM25 = {"retrievers": [{"kind": "bm25"}]}
SHIPPED = sorted(Path("training/recipes").glob("*.toml"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), queries=8)


def load(task: Path, *stages: dict[str, Any], **fields: Any) -> Pipeline:
    file = write_pipeline(task, *stages, **fields)
    return Pipeline.load(file, data=task / "data", out=Path("runs"))


def steps(task: Path, *stages: dict[str, Any], **fields: Any) -> dict[str, Step]:
    return {step.name: step for step in load(task, *stages, **fields).steps}


def test_set_is_laid_over_the_recipe_tables_merged_and_lists_replaced(task: Path) -> None:
    train = [{"teacher": "grades", "source": {"kind": "judged", "path": "other"}}]
    found = steps(task, student(train=train, optimiser={"warmup": 0.5}))["student"].fields
    written = tomllib.loads((task / "student.toml").read_text())
    assert found["optimiser"] == {"learning_rate": 3e-3, "warmup": 0.5}
    assert found["train"] == train
    assert found["student"] == written["student"]
    assert found["name"] == "student"


def test_each_seed_reads_what_its_own_seed_wrote(task: Path) -> None:
    found = steps(task, student(), bundle("{student}"), seeds=[7, 8])
    assert list(found) == ["student-7", "bundle-7", "student-8", "bundle-8"]
    for seed in (7, 8):
        assert found[f"student-{seed}"].fields["seed"] == seed
        assert found[f"bundle-{seed}"].reads == (f"student-{seed}",)
        expected = f"runs/exp/student-{seed}/checkpoint"
        assert found[f"bundle-{seed}"].fields["checkpoint"] == expected


def test_a_report_compares_systems_by_the_seeds_that_they_have_in_common(task: Path) -> None:
    report = {"recipe": "sets.toml", "systems": ["a", "b", "c", "bm25"], "figures": ["pnr"]}
    stages = [student(name) for name in "abc"]
    pipeline = load(task, *stages, seeds=[7, 8, 9], report=report)

    def seen(*finished: str) -> dict[str, list[str]]:
        done = {name: Mark({}, [], "2026-01-01T00:00:00Z") for name in finished}
        return {arm.name: [run.name for run in arm.runs] for arm in arms_of(pipeline, done)}

    none_yet = {"c": [], "bm25": ["bm25"]}
    assert seen("a-7", "b-7", "a-8") == {"a": ["a-7"], "b": ["b-7"], **none_yet}
    assert seen("a-8", "b-7", "b-8", "b-9") == {"a": ["a-8"], "b": ["b-8"], **none_yet}
    assert seen() == {"a": [], "b": [], **none_yet}


def test_a_stage_with_a_seed_of_its_own_is_run_once_and_read_by_all(task: Path) -> None:
    teacher = student("teacher", seed=3)
    of_labels = {"kind": "labels", "path": "{labels}"}
    pupil = student("pupil", train=[{"teacher": "labels", "source": of_labels}])
    labels = {
        "stage": "label",
        "name": "labels",
        "set": {
            "teacher": "{teacher}",
            "teacher_kind": "cross-encoder",
            "sources": [{"kind": "judged", "path": "nouns"}],
        },
    }
    found = steps(task, teacher, labels, pupil, seeds=[1, 2])
    assert list(found) == ["teacher", "labels", "pupil-1", "pupil-2"]
    assert found["teacher"].fields["seed"] == 3
    assert found["labels"].fields["teacher"] == "runs/exp/teacher/checkpoint"
    for seed in (1, 2):
        assert found[f"pupil-{seed}"].fields["train"][0]["source"]["path"] == "runs/exp/labels"
        assert found[f"pupil-{seed}"].reads == ("labels",)


def test_without_seeds_a_recipe_keeps_its_own(task: Path) -> None:
    assert steps(task, student(seed=5))["student"].fields["seed"] == 5
    assert "seed" not in steps(task, student())["student"].fields


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([student(beta=-1)], r"stage 'student' \(student.toml, .*\): beta: Input should be great"),
        ([student(bta=1)], "bta: Extra inputs are not permitted"),
        ([bundle("{student}")], r"stage 'bundle' reads \{student\}, which is no stage"),
        ([bundle("{student}"), student()], r"reads \{student\}, which is no earlier stage"),
        ([bundle("{bundle}")], r"reads \{bundle\}, which is no earlier stage"),
        ([student(), student()], "two stages are named 'student'"),
        ([student("report")], "a stage cannot be named 'report'"),
        ([student("a/b")], "name: String should match pattern"),
        ([{**student(), "recipe": "gone.toml"}], "gone.toml: No such file"),
        ([{**student(), "recipe": "broken.toml"}], "broken.toml: not a TOML file"),
        ([{"stage": "distil"}], "stages.0: Input tag 'distil'"),
        ([{**bundle("x"), "set": {}}], "set: Extra inputs are not permitted"),
        ([], "stages: Tuple should have at least 1 item"),
    ],
)
def test_what_cannot_be_run_is_refused_by_file_stage_and_field(
    task: Path, stages: list[dict[str, Any]], message: str
) -> None:
    (task / "broken.toml").write_text("name =")
    with pytest.raises(RecipeError, match=message) as caught:
        load(task, *stages)
    assert str(caught.value).startswith(str(task / "exp.toml"))


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"systems": ["pupil"]}, "report.systems: 'pupil' is no stage that ranks and no path"),
        ({"systems": ["latency"]}, "'latency' is no stage that ranks and no path"),
        ({"systems": ["student"], "baseline": "x"}, "'x' is none of the systems"),
        ({"systems": ["student"], "scores": ["x"]}, "'x' is none of the systems"),
        ({"systems": ["student", "student"]}, "a system is there twice"),
        ({"systems": ["student"], "figures": ["ndcg"]}, "report.figures.0"),
        ({"systems": ["student"], "recipe": "gone.toml"}, "report: .*gone.toml: No such file"),
        ({"systems": ["student"], "set": {"gain": "log"}}, r"report \(sets.toml, .*\): gain"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused(
    task: Path, report: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load(task, student(), {"stage": "latency"}, report={"recipe": "sets.toml", **report})


def test_names_that_seeds_make_alike_are_refused(task: Path) -> None:
    with pytest.raises(RecipeError, match="two stages would write 'student-1'"):
        load(task, student(), student("student-1", seed=4), seeds=[1])


def test_nothing_is_run_or_written_where_a_recipe_is_refused(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_pipeline(task, student(), student("other", beta=-1))
    call = ["pipeline", str(file), "--data", str(task / "data"), "--out", str(tmp_path / "runs")]
    assert main(call) == 2
    assert "stage 'other'" in capsys.readouterr().err
    assert main([*call[:3], str(task / "gone"), *call[4:]]) == 2
    assert "is --data right?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("stages", "sets", "message"),
    [
        (
            [student(), student("other", validation=[{"path": "no"}])],
            "nouns",
            "stage 'other': .*no:",
        ),
        (
            [{"stage": "retrieve", "set": {"queries": QUERIES, "corpora": ["no"], **BM25}}],
            "nouns",
            "stage 'retrieve': .*no:",
        ),
        ([student()], "no", "report: .*no:"),
    ],
)
def test_missing_data_is_told_before_anything_runs(
    task: Path,
    stages: list[dict[str, Any]],
    sets: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = {"set": {"sets": [{"path": sets}]}, "systems": [str(task)]}
    file = write_pipeline(task, *stages, report=report)
    call = ["pipeline", str(file), "--data", str(task / "data"), "--out", str(tmp_path / "runs")]
    assert main(call) == 2
    assert re.search(message + " no such file or folder", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_prints_every_command_and_writes_nothing(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_pipeline(
        task, student(), bundle("{student}"), seeds=[1], launch=["--num_processes", "2"]
    )
    call = ["pipeline", str(file), "--data", str(task / "data"), "--out", str(tmp_path / "runs")]
    assert main([*call, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "[1/2] student-1: to do" in shown
    assert "-m accelerate.commands.launch --num_processes 2 -m training distill" in shown
    assert "[2/2] bundle-1: to do" in shown
    assert "-m export bundle" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "file",
    [file for file in SHIPPED if "stages" in tomllib.loads(file.read_text())],
    ids=lambda file: file.stem,
)
def test_shipped_pipelines_can_be_planned(file: Path, tmp_path: Path) -> None:
    assert Pipeline.load(file, data=tmp_path, out=tmp_path).steps


def test_a_recipe_written_for_a_step_is_the_step_s(task: Path, tmp_path: Path) -> None:
    found = steps(task, student(tau=0.2))["student"].fields
    write_toml(tmp_path / "written.toml", found)
    assert tomllib.loads((tmp_path / "written.toml").read_text()) == found
