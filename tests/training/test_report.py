"""Reports of bundles: the precision that is served unless another is asked for, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_bundle
from tests.training.toy import write_toy_set
from training.__main__ import main


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the toy set, a recipe over it and a bundle of both precisions."""
    folder = tmp_path_factory.mktemp("report")
    write_toy_set(folder, queries=4)
    (folder / "sets.toml").write_text('[[sets]]\npath = "toy"\n', encoding="utf-8")
    tiny_bundle(folder / "bundle")
    return folder


def arguments(task: Path, model: str, *extra: str) -> list[str]:
    sets = str(task / "sets.toml")
    return ["evaluate", sets, "--data", str(task), "--model", str(task / model), *extra]


@pytest.mark.parametrize(
    ("extra", "precision"),
    [((), "int8"), (("--precision", "fp32"), "fp32"), (("--precision", "int8"), "int8")],
)
def test_a_bundle_is_judged_in_the_precision_it_is_served_in(
    extra: tuple[str, ...], precision: str, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(task, "bundle", *extra)) == 0
    assert f"| toy | tiny {precision} | 4 |" in capsys.readouterr().out


def test_a_checkpoint_has_no_precisions(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(task, "bundle-checkpoint", "--precision", "int8")) == 2
    assert "bundle-checkpoint is no bundle: --precision " in capsys.readouterr().err
