"""DisRanker's tables beside our figures: what stands in them is what evaluate says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.decoders import NOUNS, write_nouns_set
from training.__main__ import main
from training.baselines.paper_table import STUDENTS, TEACHERS

ROWS = """
[[sets]]
path = "nouns"

[[rows]]
row = "GPT4-Listwise"
ours = "BM25"
models = ["bm25"]

[[rows]]
row = "Hybrid-loss"
models = ["{one}", "{two}"]

[[rows]]
row = "RRA-GPT"
models = ["{three}"]
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_nouns_set(tmp_path, queries=len(NOUNS))
    for number, name in enumerate(("one", "two", "three")):
        lines = [
            f"q{query} Q0 q{query}-{(place + number) % 4} {place + 1} {4 - place} t\n"
            for query in range(len(NOUNS))
            for place in range(4)
        ]
        (tmp_path / f"{name}.run").write_text("".join(lines), encoding="utf-8")
    runs = {name: tmp_path / f"{name}.run" for name in ("one", "two", "three")}
    (tmp_path / "rows.toml").write_text(ROWS.format(**runs), encoding="utf-8")
    (tmp_path / "sets.toml").write_text('[[sets]]\npath = "nouns"\n', encoding="utf-8")
    return tmp_path


def figures(data: Path, model: Path) -> dict[str, list[float]]:
    arguments = ["evaluate", str(data / "sets.toml"), "--data", str(data), "--model", str(model)]
    assert main([*arguments, "--json", str(data / "one.json")]) == 0
    (found,) = json.loads((data / "one.json").read_text(encoding="utf-8")).values()
    rounded: dict[str, list[float]] = found
    return rounded


def test_each_row_has_the_printed_figures_and_ours(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tables", str(data / "rows.toml"), "--data", str(data)]
    assert main([*arguments, "--json", str(data / "tables.json")]) == 0
    printed = capsys.readouterr().out
    rows = {
        line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ")
        for line in printed.splitlines()
        if line.startswith("| ")
    }
    assert {*TEACHERS, *STUDENTS, "RRA-GPT"} < set(rows)
    assert rows["with CPT"][:4] == ["with CPT", "3.643", "0.8793", "–"]
    assert rows["GPT4-Listwise"][1:5] == ["3.19", "0.8299", "BM25", "1"]
    found = json.loads((data / "tables.json").read_text(encoding="utf-8"))["nouns"]
    alone = [figures(data, data / f"{name}.run") for name in ("one", "two", "three")]
    hybrid = found["Hybrid-loss"]
    for figure in ("ndcg_at_5", "pnr"):
        assert hybrid[figure]["seeds"] == pytest.approx(
            [one[figure][0] for one in alone[:2]], abs=1e-4
        )
        assert found["RRA-GPT"][figure]["value"] == pytest.approx(alone[2][figure][0], abs=1e-4)
    mean = sum(one["ndcg_at_5"][0] for one in alone[:2]) / 2
    assert hybrid["ndcg_at_5"]["value"] == pytest.approx(mean, abs=1e-4)
    assert hybrid["ndcg_at_5"]["low"] <= mean <= hybrid["ndcg_at_5"]["high"]
    assert f"{hybrid['ndcg_at_5']['value']:.4f} [" in rows["Hybrid-loss"][6]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("RRA-GPT", "Hybrid-loss", "row 'Hybrid-loss' is there twice"),
        ("two.run", "one.run", "one.run' is there twice"),
        ("three.run", "gone.run", "gone.run is not there"),
    ],
)
def test_what_comes_twice_or_is_not_there_is_refused(
    old: str, new: str, message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = data / "rows.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert main(["tables", str(path), "--data", str(data)]) == 2
    assert message in capsys.readouterr().err
