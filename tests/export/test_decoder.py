"""Decoder teachers as bundles, against transformers alone; and those that cannot become one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from export.__main__ import main
from export.bundle import export_bundle
from export.errors import ExportError
from export.padded import PaddedScorer
from export.parity import Gates
from service.contract.bundle import Bundle
from service.contract.checkpoint import CARD
from service.contract.encoder import Ends
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import RankingExample
from service.scorers.onnx import OnnxScorer
from tests.export.test_bundle import copied, some_examples
from tests.export.test_refusals import refused, rewrite
from tests.tiny import tiny_checkpoint, tiny_teacher
from tests.training.decoders import scores_by_hand


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("decoder") / "checkpoint")


@pytest.fixture
def copy(teacher: Path, tmp_path: Path) -> Path:
    return copied(teacher, tmp_path / "checkpoint")


def short_examples() -> list[RankingExample]:
    """Return examples whose pairs are whole, of many lengths."""
    return [
        RankingExample(row.query_id, " ".join(row.query.split()[:2]), row.candidates)
        for row in some_examples(8, 4, 9)
    ]


def bundle_scores(bundle: Bundle, examples: list[RankingExample]) -> np.ndarray[Any, Any]:
    """Return the bundle's scores, after seeing that padded calls give the same."""
    ends = bundle.manifest.ends
    assert ends is not None
    encoder, model = bundle.encoder(), bundle.model_path("fp32")
    pairs = [encoder.encode(example.query, example.candidates) for example in examples]
    assert len({len(pair) for row in pairs for pair in row}) > 5
    single, several = OnnxScorer(model, threads=1), PaddedScorer(model, pad=ends.pad)
    alone, padded = ([scorer.score(row) for row in pairs] for scorer in (single, several))
    np.testing.assert_allclose(padded, alone, atol=1e-5)
    return np.array(alone)


def halve(root: Path) -> None:
    weights = load_file(root / "model.safetensors")
    halves = {name: values.bfloat16() for name, values in weights.items()}
    save_file(halves, root / "model.safetensors", metadata={"format": "pt"})
    rewrite(root / "config.json", dtype="bfloat16")


@pytest.mark.parametrize(
    ("kind", "config", "change"),
    [
        ("mistral", {"sliding_window": 8}, None),
        ("llama", {}, halve),
        ("qwen2", {}, None),
    ],
    ids=["mistral with a sliding window", "llama in bfloat16", "qwen2"],
)
def test_scores_are_transformers_alone_and_padded(
    kind: str, config: dict[str, Any], change: Callable[[Path], object] | None, tmp_path: Path
) -> None:
    checkpoint = tiny_teacher(tmp_path / "checkpoint", kind=kind, **config)
    rewrite(checkpoint / CARD, max_length=128, max_query_length=32)  # nothing is cut by hand
    if change is not None:
        change(checkpoint)
    examples = short_examples()
    done = export_bundle(checkpoint, tmp_path / "teacher", name="teacher")
    expected = np.array(scores_by_hand(checkpoint, examples))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(bundle_scores(done.bundle, examples), expected, atol=1e-4)
    assert done.parity.keys() == {"fp32", "fp32 padded"}
    assert max(parity.max_delta for parity in done.parity.values()) <= 1e-4


def test_a_padded_call_that_scores_otherwise_is_seen(teacher: Path, tmp_path: Path) -> None:
    bundle = export_bundle(teacher, tmp_path / "teacher", name="teacher").bundle
    example = some_examples(1, 1, 9)[0]
    pairs = bundle.encoder().encode(example.query, example.candidates)
    model, ends = bundle.model_path("fp32"), bundle.manifest.ends
    assert ends is not None
    right, wrong = (PaddedScorer(model, pad=pad).score(pairs) for pad in (ends.pad, ends.pad - 1))
    assert np.abs(right - wrong).max() > 0.01
    with pytest.raises(ExportError, match=r"gates failed: fp32: .*; fp32 padded: max \|Δ\| is "):
        export_bundle(teacher, tmp_path / "no", name="no", gates={"fp32": Gates(max_delta=-1)})


def test_the_manifest_says_how_its_pairs_are_made(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", str(teacher), str(tmp_path / "teacher")]) == 0
    assert json.loads(capsys.readouterr().out)["parity"].keys() == {"fp32", "fp32 padded"}
    bundle = Bundle.open(tmp_path / "teacher")
    manifest = bundle.manifest
    assert manifest.template == DECODER_TEMPLATE
    assert manifest.inputs == ("input_ids", "attention_mask")
    assert manifest.ends == Ends(bos=1, eos=2, pad=json_of(teacher / "config.json")["pad_token_id"])
    assert list(manifest.precisions) == ["fp32"]
    assert {path.name for path in bundle.root.iterdir()} == {
        "manifest.json",
        "golden.jsonl",
        "tokenizer.json",
        "model.onnx",
        "model.onnx.data",
    }
    weights = bundle.weights_path("fp32")
    assert weights is not None
    assert weights.stat().st_size > bundle.model_path("fp32").stat().st_size
    lengths = [
        len(pair)
        for query in bundle.golden
        for pair in bundle.encoder().encode(query.query, query.candidates)
    ]
    assert max(lengths) == manifest.max_length  # one is cut


def json_of(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return fields


def behead(root: Path) -> None:
    weights = load_file(root / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})


def without_eos(root: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        rewrite(root / name, eos_token=None)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an adapter alone": (
        lambda root: (root / "adapter_config.json").write_text("{}", encoding="utf-8"),
        "holds a LoRA adapter without its base: train with merge = true",
    ),
    "no padding": (
        lambda root: rewrite(root / "config.json", pad_token_id=None),
        "config.json has no pad_token_id",
    ),
    "padding that is </s>": (
        lambda root: rewrite(root / "config.json", pad_token_id=2),
        "pad_token_id 2 is that of </s>",
    ),
    "no </s>": (without_eos, "the tokenizer has no eos_token"),
    "several labels": (
        lambda root: rewrite(root / "config.json", id2label={"0": "no", "1": "yes"}),
        "the head has 2 labels; a ranker has 1",
    ),
    "no head": (behead, "the weights lack score.weight"),
    "no card": (
        lambda root: (root / CARD).unlink(),
        "nor does disranker.json name the template 'decoder-pair-1' of a decoder",
    ),
    "no config": (lambda root: (root / "config.json").unlink(), "is no checkpoint"),
    "card longer than the model": (
        lambda root: rewrite(root / CARD, max_length=129),
        "max_length 129 is over the model's 128 positions",
    ),
    "card without room for a document": (
        lambda root: rewrite(root / CARD, max_length=14),
        "leaves no room for a document",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_decoder_that_cannot_be_exported_is_refused(
    damage: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGE[damage]
    change(copy)
    assert message in refused(copy, capsys)


def test_a_language_model_is_no_teacher(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_pretrained(copy)
    whole.save_pretrained(copy)
    rewrite(copy / "config.json", id2label={"0": "LABEL_0"})
    assert "the weights lack score.weight" in refused(copy, capsys)


def test_a_bert_is_no_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    rewrite(checkpoint / CARD, template=DECODER_TEMPLATE)
    message = refused(checkpoint, capsys)
    assert "BertForSequenceClassification has no head 'score'" in message


def test_int8_is_refused_and_never_the_default(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(copy, capsys, "--precision", "int8")
    assert "a decoder is exported in fp32; int8 is for encoders" in message
