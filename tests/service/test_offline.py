"""`rank` and `check-bundle`: no server, exit codes, output for people and programs."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.__main__ import main
from service.contract.bundle import Bundle
from service.contract.types import Candidate
from service.runtime import RuntimeChoiceError, require_one_runtime
from service.scorers import native
from service.scorers.onnx import OnnxScorer

LINES = (
    '{"id": "k", "title": "Kettle", "summary": "boil water"}\n'
    "\n"
    '{"text": "the [b]capital[/b] city"}\n'
    '{"id": "p", "title": "Python"}\n'
)


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    path = tmp_path / "candidates.jsonl"
    path.write_text(LINES, encoding="utf-8")
    return path


def rank(bundle_path: Path, source: object, *more: str) -> int:
    flags = ("--bundle", str(bundle_path), "--query", "water", "--candidates", str(source))
    return main(["rank", *flags, *more])


def test_rank_prints_json_for_programs(
    bundle: Bundle, candidates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank(bundle.root, candidates) == 0
    answer = json.loads(capsys.readouterr().out)
    documents = [
        Candidate("k", "Kettle", "boil water"),
        Candidate(None, "", "the [b]capital[/b] city"),
        Candidate("p", "Python", ""),
    ]
    scores = OnnxScorer(bundle.model_path("int8")).score(
        bundle.encoder().encode("water", documents)
    )
    assert [r["index"] for r in answer["results"]] == np.argsort(-scores, kind="stable").tolist()
    assert [r["id"] for r in answer["results"]] == [
        documents[r["index"]].id for r in answer["results"]
    ]
    assert [r["rank"] for r in answer["results"]] == [1, 2, 3]
    assert answer["model"]["version"] == bundle.short_version


def test_rank_prints_a_table_for_people(
    bundle_path: Path, candidates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rank(bundle_path, candidates, "--format", "table", "--top-k", "3") == 0
    out = capsys.readouterr().out
    assert "relevance" in out
    assert "[b]capital[/b]" in out
    assert "#1" in out


def test_rank_reads_standard_input(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
    assert rank(bundle_path, "-", "--top-k", "1") == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 1


@pytest.mark.parametrize(
    ("query", "lines", "message"),
    [
        ("  ", '{"text": "a"}\n', "query: a query needs non-blank text"),
        ("q", '{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n', "candidates[1].id: "),
    ],
)
def test_rank_refuses_what_the_service_refuses(
    bundle_path: Path,
    candidates: Path,
    capsys: pytest.CaptureFixture[str],
    query: str,
    lines: str,
    message: str,
) -> None:
    candidates.write_text(lines)
    arguments = ["--query", query, "--candidates", str(candidates), "--bundle", str(bundle_path)]
    assert main(["rank", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a"}\n{"text": ""}\n', ":2: candidate: a candidate needs non-blank text"),
        ('{"text": "a"}\n\n{"text"\n', ":3: candidate: Invalid JSON"),
        ('{"text": "a", "body": "b"}\n', ":1: body: unknown field"),
        ('{"text": 1}\n', ":1: text: Input should be a valid string"),
        ("\n\n", ": no candidates"),
    ],
)
def test_bad_line_is_named_with_its_file(
    bundle_path: Path,
    candidates: Path,
    capsys: pytest.CaptureFixture[str],
    lines: str,
    message: str,
) -> None:
    candidates.write_text(lines)
    assert rank(bundle_path, candidates) == 2
    error = capsys.readouterr().err
    assert f"{candidates}{message}" in error
    assert error.count("\n") == 1


def test_check_bundle_reports_the_largest_deviation(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-bundle", str(bundle_path)]) == 0
    out = capsys.readouterr().out
    assert "files intact" in out
    assert "fp32, engine onnx: largest deviation 0.0000" in out
    assert "int8, engine onnx: largest deviation" in out
    assert ("int8, engine native: largest deviation" in out) == (native.why_not() is None)


def test_check_bundle_refuses_a_flipped_byte(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle_path, broken)
    tokenizer = broken / "tokenizer.json"
    data = bytearray(tokenizer.read_bytes())
    data[100] ^= 1
    tokenizer.write_bytes(data)
    assert main(["check-bundle", str(broken)]) == 2
    assert "tokenizer.json" in capsys.readouterr().err


def test_runtimes_exclude_each_other() -> None:
    require_one_runtime({"onnxruntime"})
    require_one_runtime({"onnxruntime-gpu"})
    with pytest.raises(RuntimeChoiceError, match="no inference runtime"):
        require_one_runtime(set())
    with pytest.raises(RuntimeChoiceError, match="onnxruntime and onnxruntime-gpu"):
        require_one_runtime({"onnxruntime", "onnxruntime-gpu"})


def test_service_needs_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, service.app, service.__main__, service.server;"
        "print(sorted({'torch', 'transformers', 'training', 'export'} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
