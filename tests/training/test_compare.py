"""Comparisons of whole systems: what the table says against scipy over the same figures."""

from __future__ import annotations

import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG
from scipy.stats import permutation_test

from tests.tiny import tiny_bundle
from tests.training.toy import write_toy_set
from training.__main__ import main


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the toy set of eight queries, two bundles and a run of each."""
    folder = tmp_path_factory.mktemp("compare")
    write_toy_set(folder, queries=8)
    (folder / "sets.toml").write_text('[[sets]]\npath = "toy"\n', encoding="utf-8")
    for seed, name in enumerate(("one", "two")):
        tiny_bundle(folder / name, name=name, seed=seed, precisions=("fp32",))
        arguments = ["evaluate", str(folder / "sets.toml"), "--data", str(folder)]
        assert (
            main([*arguments, "--model", str(folder / name), "--runs-to", str(folder / "r")]) == 0
        )
    return folder


def compared(task: Path, *models: str) -> list[dict[str, object]]:
    arguments = ["compare", str(task / "sets.toml"), "--data", str(task)]
    for model in models:
        arguments += ["--model", str(task / model)]
    assert main([*arguments, "--json", str(task / "out.json")]) == 0
    found: list[dict[str, object]] = json.loads((task / "out.json").read_text("utf-8"))["toy"]
    return found


def test_the_p_of_ndcg_is_scipys_over_trec_evals_figures(task: Path) -> None:
    row = next(row for row in compared(task, "one", "two") if row["figure"] == "nDCG@5")
    figures = []
    for name in ("two", "one"):
        found = ir_measures.iter_calc(
            [nDCG @ 5],
            list(ir_measures.read_trec_qrels(str(task / "r/toy/qrels.txt"))),  # type: ignore[no-untyped-call]
            list(ir_measures.read_trec_run(str(task / f"r/toy/{name}-fp32.run"))),  # type: ignore[no-untyped-call]
        )
        by_query = {one.query_id: one.value for one in found}
        figures.append(np.array([by_query[f"q{number}"] for number in range(8)]))
    expected = permutation_test(
        figures,
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["draws"] == 0
    gap = row["difference"]
    assert isinstance(gap, dict)
    assert gap["value"] == pytest.approx(expected.statistic)
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_a_model_and_the_run_it_wrote_are_the_same_system(task: Path) -> None:
    for row in compared(task, "one", "r/toy/one-fp32.run"):
        assert row["p"] == row["p_holm"] == 1.0
        gap = row["difference"]
        assert isinstance(gap, dict)
        assert gap.get("value", gap.get("delta")) == 0.0


def test_holm_counts_every_system_and_figure(task: Path) -> None:
    pair = compared(task, "one", "two")
    rows = compared(task, "one", "two", "r/toy/one-fp32.run")
    assert (len(pair), len(rows)) == (5, 10)
    by_p = sorted(rows, key=lambda row: float(str(row["p"])))
    highest = 0.0
    for rank, row in enumerate(by_p):
        highest = max(highest, min(1.0, float(str(row["p"])) * (10 - rank)))
        assert row["p_holm"] == pytest.approx(highest)


def test_the_table_says_how_it_was_tested(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(task, "one", "two")
    out = capsys.readouterr().out
    assert "8 queries." in out
    assert "(every swap; exact where 16 queries or fewer differ)" in out
    assert "| system | figure | less one fp32 | p | p (Holm) |" in out
    assert "| two fp32 | ΔGSB of the top 5 | " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "or --judgements"),
        (["sets.toml", "--data", "."], "at least two --model"),
        (["sets.toml", "--data", ".", "--model", "one", "--model", "one"], "is there twice"),
        (["sets.toml", "--data", ".", "--model", "one", "--model", "x"], "x is no checkpoint"),
    ],
)
def test_an_unusable_comparison_is_refused(
    arguments: list[str],
    message: str,
    task: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(task)
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
