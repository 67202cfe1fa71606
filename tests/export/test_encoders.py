"""Cross-encoders of every family: exported by the command, served, against transformers alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.__main__ import main
from export.bundle import export_bundle
from export.errors import ExportError
from export.padded import PaddedScorer
from export.parity import GATES, Gates
from service.app import create_app
from service.contract.bundle import Bundle
from service.contract.manifest import Precision, Source
from service.contract.template import PAIR_TEMPLATE, TEMPLATE, document_text
from service.contract.types import Candidate, Float32s
from service.engines.local import LocalEngine
from service.scorers.onnx import INPUTS, UNSEGMENTED_INPUTS
from service.scorers.scorer import choose_engine, load_scorer
from service.settings import Settings
from tests.encoders import CONFIGS, tiny_encoder
from tests.service.conftest import started
from tests.tiny import TOY_GATES

QUERY = "how does the kettle boil Wasser, naïve?"
CANDIDATES = (
    Candidate("plain", "the kettle", "water in the kettle boils"),
    Candidate("untitled", "", "the capital of the cat"),
    Candidate("spaces", "  leading", "  and trailing  "),
    Candidate("accents", "Crème brûlée", "Ångström — «Straße»"),
    Candidate("scripts", "東京の天気", "서울 날씨 👩‍👩‍👧 🇩🇪"),
    Candidate("special", "[SEP] </s>", "<pad> [CLS] <s> dog"),
    Candidate("lines", "one\ntwo", "three\tfour\u00a0five"),
    Candidate("long", "", "the cat and the dog in the kettle " * 20),
    Candidate("dot", "", "."),
)
SEGMENTED = ("bert", "electra")


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, Bundle]]:
    """Return what gives a family's checkpoint and its bundle, made once by the command."""
    root, made = tmp_path_factory.mktemp("encoders"), {}

    def export(kind: str) -> tuple[Path, Bundle]:
        if kind not in made:
            folder = tiny_encoder(root / kind, kind)
            assert main(["from-hub", str(folder), str(root / f"{kind}-bundle")]) == 0
            made[kind] = folder, Bundle.open(root / f"{kind}-bundle")
        return made[kind]

    return export


def torch_scores(folder: Path, candidates: Sequence[Candidate], max_length: int) -> Float32s:
    """Return the scores as a user of transformers gets them, in one padded call."""
    tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer(
        [QUERY] * len(candidates),
        [document_text(candidate) for candidate in candidates],
        padding=True,
        truncation="only_second",
        max_length=max_length,
        split_special_tokens=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        scores: Float32s = model(**batch).logits[:, 0].numpy()
    return scores


def served_scores(
    bundle: Bundle, precision: Precision, *requests: Sequence[Candidate]
) -> list[list[float]]:
    """Return the scores of each request's candidates over HTTP, in the requests' order."""
    engine = LocalEngine(load_scorer(bundle, precision, threads=1))
    settings = Settings(bundle=bundle.root)
    app = create_app(settings, bundle=bundle, engine=engine, precision=precision)

    async def ask() -> list[list[float]]:
        async with started(app) as client:
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return [await scores_of(client, candidates) for candidates in requests]

    try:
        return asyncio.run(asyncio.wait_for(ask(), timeout=60))
    finally:
        engine.close()


async def scores_of(client: httpx.AsyncClient, candidates: Sequence[Candidate]) -> list[float]:
    body = {"query": QUERY, "candidates": [asdict(candidate) for candidate in candidates]}
    answer = await client.post("/rank", json=body)
    results = answer.raise_for_status().json()["results"]
    for result in results:
        assert result["relevance"] == pytest.approx(1 / (1 + np.exp(-result["score"])))
    return [result["score"] for result in sorted(results, key=lambda result: result["index"])]


@pytest.mark.parametrize("kind", CONFIGS)
def test_served_scores_are_transformers(
    kind: str, exported: Callable[[str], tuple[Path, Bundle]]
) -> None:
    folder, bundle = exported(kind)
    expected = torch_scores(folder, CANDIDATES, bundle.manifest.max_length)
    alone = [[candidate] for candidate in CANDIDATES]
    found, *others = served_scores(bundle, "fp32", CANDIDATES, *alone)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert others == [[score] for score in found]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_manifest_says_what_the_service_needs(
    kind: str, exported: Callable[[str], tuple[Path, Bundle]]
) -> None:
    folder, bundle = exported(kind)
    manifest = bundle.manifest
    assert manifest.template == (TEMPLATE if kind == "bert" else PAIR_TEMPLATE)
    assert manifest.inputs == (INPUTS if kind in SEGMENTED else UNSEGMENTED_INPUTS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert manifest.pad == (None if kind == "bert" else config["pad_token_id"])
    assert (manifest.max_length, manifest.max_query_length) == (128, 64)
    assert manifest.source == Source(name=kind)
    parity: Any = manifest.metrics["parity"]
    assert parity["fp32"]["max_delta"] <= 1e-4
    assert parity["fp32 padded"]["max_delta"] <= 1e-4


def test_the_padding_of_the_manifest_is_what_padded_calls_need(
    exported: Callable[[str], tuple[Path, Bundle]],
) -> None:
    _, bundle = exported("roberta")
    pad, model = bundle.manifest.pad, bundle.model_path("fp32")
    assert pad is not None
    pairs = bundle.encoder().encode(QUERY, CANDIDATES)
    alone = load_scorer(bundle, "fp32", threads=1).score(pairs)
    np.testing.assert_allclose(PaddedScorer(model, pad=pad).score(pairs), alone, atol=1e-4)
    assert np.ptp([len(pair) for pair in pairs]) > 20


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Return rows in steps of a 127th of their largest value, as int8 weights are."""
    scale = values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return (values / scale).round() * scale


def round_input(module: torch.nn.Linear, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Return each token's activations in 255 steps; what is no token's stays as it is."""
    (x,) = inputs
    if x.ndim == 2 and module.bias is not None:
        return x
    low = x.amin(dim=-1, keepdim=True)
    scale = ((x.amax(dim=-1, keepdim=True) - low) / 255).clamp(min=1e-30)
    return ((x - low) / scale).round() * scale + low


def int8_torch(folder: Path) -> torch.nn.Module:
    """Return the model with the arithmetic of int8, done in float32 by torch."""
    model: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    heads = ("classifier", "classifier.dense", "classifier.out_proj")
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name not in heads:
                module.weight.copy_(rounded(module.weight))
                module.register_forward_pre_hook(round_input)
            elif name.endswith(("word_embeddings", "tok_embeddings")):
                module.weight.copy_(rounded(module.weight))
    return model


@pytest.mark.parametrize("kind", ["electra", "xlm-roberta", "modernbert"])
def test_int8_is_what_torch_makes_of_rounded_weights_and_activations(
    kind: str, tmp_path: Path
) -> None:
    folder = tiny_encoder(tmp_path / kind, kind)
    bundle = export_bundle(folder, tmp_path / "bundle", name=kind, gates=TOY_GATES).bundle
    pairs = bundle.encoder().encode(QUERY, CANDIDATES)
    fp32, int8 = (load_scorer(bundle, name, threads=1).score(pairs) for name in ("fp32", "int8"))
    model, segmented = int8_torch(folder), kind in SEGMENTED
    expected = []
    for pair in pairs:
        feeds = {"input_ids": torch.from_numpy(pair.input_ids)[None]}
        if segmented:
            feeds["token_type_ids"] = torch.from_numpy(pair.token_type_ids)[None]
        with torch.inference_mode():
            expected.append(model(**feeds).logits.item())
    # A value on the edge of a step may fall to either side, so not to the last digit.
    assert np.abs(int8 - expected).mean() < 0.5 * np.abs(int8 - fp32).mean()
    sizes = {path.name: path.stat().st_size for path in bundle.root.iterdir()}
    assert sizes["model.int8.onnx"] < 0.6 * sizes["model.onnx.data"]
    assert served_scores(bundle, "int8", CANDIDATES) == [int8.tolist()]


def test_an_int8_that_fails_is_left_out_unless_it_was_asked_for(
    exported: Callable[[str], tuple[Path, Bundle]], tmp_path: Path
) -> None:
    folder, _ = exported("electra")
    gates = {**GATES, "int8": Gates(min_tau=1.1)}
    done = export_bundle(folder, tmp_path / "bundle", name="electra", gates=gates)
    (failure,) = done.left_out["int8"]
    assert failure.startswith("int8: Kendall τ is ")
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert list(manifest.precisions) == ["fp32"]
    assert manifest.metrics["parity"].keys() == {"fp32", "fp32 padded"}  # type: ignore[union-attr]
    assert "int8" in done.parity
    assert not (tmp_path / "bundle" / "model.int8.onnx").exists()
    with pytest.raises(ExportError, match="gates failed: int8: Kendall"):
        export_bundle(folder, tmp_path / "no", name="no", precisions=("fp32", "int8"), gates=gates)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_command_says_that_int8_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_encoder(tmp_path / "electra", "electra")
    weights = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():  # scores that lie too near to each other for int8
        weights.classifier.out_proj.weight.mul_(1e-6)
    weights.save_pretrained(folder)
    assert main(["from-hub", str(folder), str(tmp_path / "bundle")]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["precisions"] == ["fp32"]
    assert report["left_out"].keys() == {"int8"}
    assert "int8 is left out, its gates failed: int8: Kendall τ is " in printed.err


def test_the_native_engine_leaves_other_families_to_onnx_runtime(
    exported: Callable[[str], tuple[Path, Bundle]],
) -> None:
    _, bundle = exported("xlm-roberta")
    reason = "the native engine runs BERTs; the bundle has 'pair-1' pairs"
    assert choose_engine(bundle, "fp32") == ("onnx", reason)


@pytest.mark.parametrize(
    "config",
    [{"hidden_act": "relu"}, {"hidden_size": 72}, {"intermediate_size": 100}],
    ids=["activation", "width", "feed-forward"],
)
def test_a_bert_that_the_native_engine_does_not_know_is_served_by_onnx_runtime(
    config: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny_encoder(tmp_path / "bert", "bert", **config)
    bundle = export_bundle(folder, tmp_path / "bundle", name="bert", gates=TOY_GATES).bundle
    assert bundle.manifest.template == PAIR_TEMPLATE
    assert [choose_engine(bundle, name)[0] for name in bundle.manifest.precisions] == ["onnx"] * 2
    expected = torch_scores(folder, CANDIDATES, 128)
    pairs = bundle.encoder().encode(QUERY, CANDIDATES)
    found = load_scorer(bundle, "fp32", threads=1).score(pairs)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_lengths_are_asked_for_within_the_models_positions(
    exported: Callable[[str], tuple[Path, Bundle]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = exported("roberta")  # 130 positions, two of which lie before the padding's
    arguments = ["from-hub", str(folder), str(tmp_path / "bundle"), "--precision", "fp32"]
    assert main([*arguments, "--max-length", "129"]) == 2
    assert "max_length 129 is over the model's 128 positions" in capsys.readouterr().err
    for length in ("0", "7"):
        assert main([*arguments, "--max-length", length]) == 2
        assert "max_length: Input should be greater" in capsys.readouterr().err
    assert main([*arguments, "--max-length", "40"]) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert (bundle.manifest.max_length, bundle.manifest.max_query_length) == (40, 20)
    pairs = bundle.encoder().encode("cat", CANDIDATES)
    assert max(len(pair) for pair in pairs) == 40
