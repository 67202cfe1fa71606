"""TREC files, against trec_eval's reading of them through ir-measures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, nDCG

from service.contract.metrics import ndcg
from tests.tiny import tiny_bundle
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.figures import JudgedScores
from training.recipe import RecipeError
from training.trec import read_run, read_topics, read_trec_qrels, write_qrels, write_run

read_qrels: Callable[[str], Iterable[ir_measures.Qrel]] = ir_measures.read_trec_qrels
read_scored: Callable[[str], Iterable[ir_measures.ScoredDoc]] = ir_measures.read_trec_run


def test_a_run_comes_back_in_its_order(tmp_path: Path) -> None:
    ranked = {"q1": ["b", "a", "c"], "q2": ["z"], "q3": []}
    write_run(tmp_path / "x.run", ranked, tag="mine")
    lines = (tmp_path / "x.run").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["q1 Q0 b 1 2 mine", "q1 Q0 a 2 1 mine"]
    found = read_run(tmp_path / "x.run")
    assert {query_id: list(scores) for query_id, scores in found.items()} == {
        "q1": ["b", "a", "c"],
        "q2": ["z"],
    }


def test_grades_come_back(tmp_path: Path) -> None:
    qrels = {"q1": {"a": 0.0, "b": 3.0}, "q2": {"z": -1.0}}
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert read_trec_qrels(tmp_path / "qrels.txt") == qrels


def test_ties_are_judged_by_trec_eval_as_by_us(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    qrels, ranked, ours = {}, {}, {}
    for number in range(30):
        size = int(rng.integers(2, 20))
        names = tuple(f"d{place}" for place in rng.permutation(size))
        grades = rng.integers(0, 4, size).astype(float)
        scores = rng.integers(0, 3, size).astype(float)  # nearly all tied
        query = JudgedScores(f"q{number}", names, grades, scores)
        ranked[query.query_id] = query.ranked
        qrels[query.query_id] = dict(zip(names, grades.tolist(), strict=True))
        ours[query.query_id] = ndcg(grades, scores, 5)
    write_run(tmp_path / "x.run", ranked, tag="x")
    write_qrels(tmp_path / "qrels.txt", qrels)
    theirs = ir_measures.iter_calc(
        [nDCG @ 5],
        read_qrels(str(tmp_path / "qrels.txt")),
        read_scored(str(tmp_path / "x.run")),
    )
    assert {row.query_id: row.value for row in theirs} == pytest.approx(ours, abs=1e-12)


def test_a_foreign_run_is_ordered_by_score_then_by_line(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.run.gz", "wt", encoding="utf-8") as stream:
        stream.write("1 Q0 low 1 -3.5 t\n1\tQ0\thigh\t2\t1e2\tt\n1 Q0 b 3 2 t\n1 Q0 a 4 2 t\n")
    assert list(read_run(tmp_path / "x.run.gz")["1"]) == ["high", "b", "a", "low"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 Q0 d 1 2", "5 fields, expected 6"),
        ("1 Q0 d 1 high t", "score 'high' is no finite number"),
        ("1 Q0 d 1 nan t", "score 'nan' is no finite number"),
        ("1 Q0 a 1 2 t", "document 'a' again for query '1'"),
    ],
)
def test_a_bad_line_of_a_run_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.run"
    path.write_text(f"1 Q0 a 1 2 t\n\n{line}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_run(path)
    assert str(caught.value) == f"{path}:3: {message}"


@pytest.mark.parametrize("line", ["1 0 d", "1 0 d good", "1 0 d inf", "1 0 d 1 2"])
def test_a_bad_line_of_qrels_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text(f"1 0 a 1\n{line}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"qrels\.txt:2: "):
        read_trec_qrels(path)


def test_what_trec_files_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"grade 2\.5 is no whole number"):
        write_qrels(tmp_path / "x", {"q": {"d": 2.5}})
    for name in ("", "two words", "tab\t"):
        with pytest.raises(RecipeError, match="no name TREC files can hold"):
            write_run(tmp_path / "x", {"q": [name]}, tag="t")
    with pytest.raises(RecipeError, match="'q' has a document id twice"):
        write_run(tmp_path / "x", {"q": ["a", "a"]}, tag="t")
    assert not (tmp_path / "x").exists()


def test_topics_are_read_from_lines_and_from_blocks(tmp_path: Path) -> None:
    expected = {"301": "International Organized Crime", "302": "polio"}
    lines, blocks = tmp_path / "topics.tsv", tmp_path / "topics.txt"
    lines.write_text("301\tInternational Organized Crime\n302\tpolio\n", encoding="utf-8")
    blocks.write_text(
        "<top>\n<num> Number: 301\n<title> International\n Organized Crime\n\n<desc> Description:\n"
        "Which?\n</top>\n\n<top><num>302</num><title>polio</title></top>\n",
        encoding="utf-8",
    )
    assert read_topics(lines) == expected
    assert read_topics(blocks) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ta\nno tab\n", ":2: no topic"),
        ("1\ta\n1\tb\n", ":2: query '1' again"),
        ("<top>\n<num> 1\n</top>\n", ":3: a <top> without <num> or <title>"),
        ("<top>\n<num> 1\n<title> x\n", "the last <top> is not closed"),
    ],
)
def test_bad_topics_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "topics").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_topics(tmp_path / "topics")
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trec")
    write_toy_set(folder, queries=6)
    (folder / "sets.toml").write_text('[[sets]]\npath = "toy"\n', encoding="utf-8")
    tiny_bundle(folder / "bundle", precisions=("fp32",))
    return folder


def test_trec_eval_finds_the_reports_figures_in_the_files_it_writes(task: Path) -> None:
    arguments = ["evaluate", str(task / "sets.toml"), "--data", str(task)]
    runs, figures = task / "runs", task / "figures.json"
    outputs = ["--runs-to", str(runs), "--json", str(figures)]
    assert main([*arguments, "--model", str(task / "bundle"), *outputs]) == 0
    theirs = ir_measures.calc_aggregate(
        [nDCG @ 5, nDCG @ 10, RR @ 10],
        read_qrels(str(runs / "toy" / "qrels.txt")),
        read_scored(str(runs / "toy" / "tiny-fp32.run")),
    )
    ours = json.loads(figures.read_text(encoding="utf-8"))["toy / tiny fp32"]
    for name, measure in {
        "ndcg_at_5": nDCG @ 5,
        "ndcg_at_10": nDCG @ 10,
        "mrr_at_10": RR @ 10,
    }.items():
        assert ours[name][0] == pytest.approx(theirs[measure], abs=5e-5)  # rounded to 4 places
    again = task / "again.json"
    run = str(runs / "toy" / "tiny-fp32.run")
    assert main([*arguments, "--model", run, "--json", str(again)]) == 0
    assert json.loads(again.read_text(encoding="utf-8"))["toy / tiny-fp32"] == ours


def test_the_gain_is_the_recipes_and_is_named(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = task / "exponential.toml"
    recipe.write_text('gain = "exponential"\n[[sets]]\npath = "toy"\n', encoding="utf-8")
    arguments = ["evaluate", str(recipe), "--data", str(task), "--model", str(task / "bundle")]
    assert main(arguments) == 0
    assert "| nDCG@5 (exponential) | nDCG@10 (exponential) |" in capsys.readouterr().out


def test_a_run_of_other_queries_is_refused(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (task / "other.run").write_text("unknown Q0 d 1 1 t\n", encoding="utf-8")
    arguments = ["evaluate", str(task / "sets.toml"), "--data", str(task)]
    assert main([*arguments, "--model", str(task / "other.run")]) == 2
    assert "other: no query of toy is in it" in capsys.readouterr().err
