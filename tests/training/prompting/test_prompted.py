"""Prompted rankers as systems to compare and as teachers: an oracle by HTTP, a random one here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.json_server import Reply
from tests.training.decoders import NOUNS, tiny_mistral, write_nouns_set
from tests.training.prompting.openai_server import Server, oracle
from training.__main__ import main
from training.data import read_judged, read_labels
from training.prompting.prompted import Prompted
from training.recipe import JudgedSet
from training.systems import load_system

METHODS = ["yes-no", "likelihood", "pairs", "sorting", "listwise", "tiers"]
SETS = '[[sets]]\npath = "nouns"\n'
LABELS = """
name = "{name}"
teacher = "{teacher}"
teacher_kind = "prompted"
queries_per_shard = 3
[[sources]]
kind = "judged"
path = "nouns"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_nouns_set(folder, queries=len(NOUNS))
    (folder / "sets.toml").write_text(SETS, encoding="utf-8")
    tiny_mistral(folder / "lm", positions=512)
    return folder


def write_prompting(folder: Path, method: str, model: str, **fields: object) -> Path:
    rows = {"name": f"some-{method}", "method": method, **fields}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in rows.items())
    path = folder / f"{method}.toml"
    path.write_text(f"{text}[model]\n{model}", encoding="utf-8")
    return path


@pytest.mark.parametrize("method", METHODS)
def test_an_endpoint_that_knows_ranks_perfectly(method: str, data: Path, tmp_path: Path) -> None:
    server = Server(oracle)
    with server.run() as url:
        model = f'kind = "endpoint"\nurl = "{url}"\nmodel = "m"\n'
        path = write_prompting(tmp_path, method, model)
        arguments = ["evaluate", str(data / "sets.toml"), "--data", str(data)]
        assert main([*arguments, "--model", str(path), "--json", str(tmp_path / "o.json")]) == 0
    (figures,) = json.loads((tmp_path / "o.json").read_text(encoding="utf-8")).values()
    assert figures["ndcg_at_5"][0] == 1.0
    assert figures["queries"] == len(NOUNS)


@pytest.mark.parametrize("method", METHODS)
def test_a_random_local_model_is_compared_and_labels(
    method: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f'kind = "local"\nbase = "{data / "lm"}"\n'
    cache = str(tmp_path / "answers.sqlite")
    path = write_prompting(tmp_path, method, model, window=3, step=1, shown=3, cache=cache)
    arguments = ["compare", str(data / "sets.toml"), "--data", str(data), "--model", "bm25"]
    assert main([*arguments, "--model", str(path)]) == 0
    assert f"| some-{method} | nDCG@5 |" in capsys.readouterr().out
    recipe = tmp_path / "labels.toml"
    recipe.write_text(LABELS.format(name="labels", teacher=path), encoding="utf-8")
    assert main(["label", str(recipe), "--data", str(data), "--out", str(tmp_path)]) == 0
    system = load_system(path)
    assert isinstance(system, Prompted)
    labels = read_labels(tmp_path / "labels")
    for example in labels:
        _, scores = system.score(example)
        if method in ("yes-no", "likelihood", "pairs"):  # the others begin from BM25's order
            assert example.teacher_scores == pytest.approx(scores, abs=1e-4)
    assert len(labels) == len(NOUNS)


def test_the_first_order_is_the_retrievers_or_the_datas(data: Path, tmp_path: Path) -> None:
    prompts: list[str] = []

    server = Server(oracle)
    example = read_judged(JudgedSet(path="nouns"), data)[0]
    with server.run() as url:
        model = f'kind = "endpoint"\nurl = "{url}"\nmodel = "m"\n'
        for order in ("given", "bm25"):
            path = write_prompting(tmp_path, "listwise", model, order=order)
            load_system(path).score(example)
            prompts.append(server.asked[-1][2]["messages"][0]["content"])
    given, first = (
        [line[4:] for line in prompt.splitlines() if line.startswith("[")] for prompt in prompts
    )
    texts = [f"{one.title} {one.summary}" for one in example.candidates]
    assert given == texts
    assert sorted(first) == sorted(texts)
    assert example.query.split()[0] in first[0]


def test_labels_of_another_prompt_are_refused_and_another_pace_goes_on(
    data: Path, tmp_path: Path
) -> None:
    server = Server(oracle)
    with server.run() as url:
        model = f'kind = "endpoint"\nurl = "{url}"\nmodel = "m"\n'
        path = write_prompting(tmp_path, "tiers", model)
        recipe = tmp_path / "labels.toml"
        recipe.write_text(LABELS.format(name="labels", teacher=path), encoding="utf-8")
        arguments = ["label", str(recipe), "--data", str(data), "--out", str(tmp_path)]
        assert main(arguments) == 0
        slower = f"{model}connections = 1\nrequests_per_s = 50\nprompt_price = 2.5\n"
        write_prompting(tmp_path, "tiers", slower)
        assert main(arguments) == 0
        write_prompting(tmp_path, "tiers", model, shown=2)
        assert main(arguments) == 2


def test_a_run_that_fails_says_what_it_took(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter(range(5))

    def answer(path: str, body: dict[str, Any]) -> Reply:
        return oracle(path, body) if next(left, None) is not None else (400, {}, b"no more")

    with Server(answer).run() as url:
        model = f'kind = "endpoint"\nurl = "{url}"\nmodel = "m"\nconnections = 1\n'
        path = write_prompting(tmp_path, "yes-no", model)
        arguments = ["evaluate", str(data / "sets.toml"), "--data", str(data)]
        assert main([*arguments, "--model", str(path)]) == 2
    found = capsys.readouterr()
    assert "5 questions asked, 0 answered before; tokens 35 read, 5 written" in found.out
    assert "no more" in found.err


def test_a_step_over_its_window_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    model = 'kind = "local"\nbase = "x"\n'
    path = write_prompting(tmp_path, "listwise", model, window=4, step=5)
    arguments = ["evaluate", str(data / "sets.toml"), "--data", str(data)]
    assert main([*arguments, "--model", str(path)]) == 2
    assert "step 5 is over window 4" in capsys.readouterr().err
