"""Checkpoints and examples that cannot become a bundle: one clear error, before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.__main__ import main
from service.contract.checkpoint import CARD


def rewrite(path: Path, **changes: Any) -> None:
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(fields | changes), encoding="utf-8")


def poison(path: Path) -> None:
    weights = load_file(path)
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], float("nan"))
    save_file(weights, path, metadata={"format": "pt"})


def behead(path: Path) -> None:
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("classifier")}
    save_file(weights, path, metadata={"format": "pt"})


def unlink(root: Path, *names: str) -> None:
    for name in names:
        (root / name).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (
        lambda root: behead(root / "model.safetensors"),
        "the weights lack classifier.bias, classifier.weight",
    ),
    "no tokenizer": (
        lambda root: unlink(root, "tokenizer.json", "vocab.txt"),
        "its tokenizer cannot be loaded",
    ),
    "broken tokenizer": (
        lambda root: (root / "tokenizer.json").write_text("{}", encoding="utf-8"),
        "its tokenizer cannot be loaded",
    ),
    "no config": (lambda root: (root / "config.json").unlink(), "is no checkpoint"),
    "broken config": (
        lambda root: (root / "config.json").write_text("{", encoding="utf-8"),
        "is no checkpoint",
    ),
    "config without sizes": (
        lambda root: (root / "config.json").write_text(
            '{"model_type": "bert", "id2label": {"0": "x"}}', encoding="utf-8"
        ),
        "the weights cannot be loaded",
    ),
    "no encoder": (
        lambda root: rewrite(root / "config.json", model_type="bart"),
        "a 'bart' is no encoder that can be exported",
    ),
    "of another family than its weights": (
        lambda root: rewrite(root / "config.json", model_type="distilbert"),
        "the weights",
    ),
    "of no family that transformers knows": (
        lambda root: rewrite(root / "config.json", model_type="unheard-of"),
        "is no checkpoint: config.json: ",
    ),
    "several labels": (
        lambda root: rewrite(root / "config.json", id2label={"0": "no", "1": "yes"}),
        "the head has 2 labels; a ranker has 1",
    ),
    "labels left to the default": (
        lambda root: (root / "config.json").write_text(
            json.dumps(
                {
                    name: value
                    for name, value in json.loads((root / "config.json").read_text()).items()
                    if name not in ("id2label", "label2id", "num_labels")
                }
            ),
            encoding="utf-8",
        ),
        "the head has 2 labels; a ranker has 1",
    ),
    "no weights": (
        lambda root: (root / "model.safetensors").unlink(),
        "the weights cannot be loaded",
    ),
    "damaged weights": (
        lambda root: (root / "model.safetensors").write_bytes(b"x" * 64),
        "the weights cannot be loaded",
    ),
    "weights that are not finite": (
        lambda root: poison(root / "model.safetensors"),
        "its scores are not finite",
    ),
    "card that is no JSON": (
        lambda root: (root / CARD).write_text("{", encoding="utf-8"),
        f"{CARD}: ",
    ),
    "card with an unknown field": (lambda root: rewrite(root / CARD, colour=1), "colour"),
    "card of another template": (
        lambda root: rewrite(root / CARD, template="bert-pair-9"),
        "bert-pair-9",
    ),
    "card longer than the model": (
        lambda root: rewrite(root / CARD, max_length=257),
        "max_length 257 is over the model's 256 positions",
    ),
    "card without room for a document": (
        lambda root: rewrite(root / CARD, max_length=60),
        "leaves no room for a document",
    ),
    "card with a figure that is no number": (
        lambda root: rewrite(root / CARD, metrics={"ndcg": float("inf")}),
        "metrics",
    ),
}


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    target = tmp_path / "checkpoint"
    target.mkdir()
    for path in checkpoint.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def refused(
    copy: Path, capsys: pytest.CaptureFixture[str], *extra: str, name: str = "out/toy"
) -> str:
    """Export, expect a refusal that leaves no file, and return its one line."""
    target = copy.parent / name
    assert main(["bundle", str(copy), str(target), "--precision", "fp32", *extra]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in printed.err
    assert not target.exists()
    assert (
        not target.parent.exists()
        or target.parent == copy.parent
        or not any(target.parent.iterdir())
    )
    return line


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_that_cannot_be_exported_is_refused(
    damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGE[damage]
    change(copy)
    assert message in refused(copy, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n", "pairs.jsonl:1: not a ranking example"),
        (b'{"query": "q"}\n', "pairs.jsonl:1: not a ranking example"),
        (b'\n{"query": "q", "candidates": [{"id": "a", "colour": 1}]}\n', "pairs.jsonl:2: "),
        (b'{"query": "q", "candidates": [{"id": "a"}], "grades": [1, 2]}\n', "pairs.jsonl:1: "),
        (b'{"query": "q", "candidates": [{"title": null}]}\n', "pairs.jsonl:1: "),
        (b'{"query": "\xff", "candidates": []}\n', "pairs.jsonl:1: "),
        (b'{"query": "q", "candidates": []}\n', "has no query with candidates"),
        (b"", "has no query with candidates"),
    ],
    ids=["no JSON", "field", "unknown", "grades", "type", "bytes", "candidates", "empty"],
)
def test_broken_examples_are_refused(
    content: bytes, message: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy.parent / "pairs.jsonl"
    path.write_bytes(content)
    line = refused(copy, capsys, "--examples", str(path))
    assert line.startswith("error: parity examples: ")
    assert message in line


def test_missing_examples_are_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(copy, capsys, "--examples", str(copy.parent / "absent.jsonl"))
    assert "absent.jsonl" in line


def test_a_name_that_no_bundle_can_have_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "name" in refused(copy, capsys, "--name", "my model")
    assert "name" in refused(copy, capsys, name="out/my model")


def test_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is no checkpoint" in refused(tmp_path / "absent", capsys)
