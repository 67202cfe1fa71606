"""A decoder teacher behind vLLM's `/classify`: a real server, our token ids, torch's scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from service.contract.checkpoint import CARD, Card
from service.contract.decoder_checkpoint import checkpoint_encoder
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import Candidate, RankingExample
from service.scorers.json_client import RemoteError
from service.scorers.remote import RemoteScorer
from tests.classifier import Classifier
from tests.training.decoders import tiny_mistral, write_nouns_set
from training.__main__ import main
from training.checkpoint import write_checkpoint
from training.data import read_judged, read_labels
from training.decoder import build_scorer, decoder_encoder
from training.elsewhere import RemoteTeacher
from training.recipe import JudgedSet, LabelRecipe, RecipeError, RemoteOptions
from training.teacher import load_teacher
from training.teacher_recipes import Decoder

LIMITS = {"max_length": 32, "max_query_length": 6}
RECIPE = """
name = "classified"
teacher = "{url}"
teacher_kind = "remote"
queries_per_shard = 3

[remote]
protocol = "vllm-classify"
model = "teacher"
tokenizer = "{tokenizer}"
documents_per_request = 3
connections = 2

[[sources]]
kind = "judged"
path = "nouns"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a judged set and a decoder teacher's checkpoint."""
    folder = tmp_path_factory.mktemp("task")
    write_nouns_set(folder, queries=8)
    base = tiny_mistral(folder / "base")
    model, tokenizer, _ = build_scorer(Decoder(base=str(base), **LIMITS), precision="no", seed=0)
    card = Card(template=DECODER_TEMPLATE, **LIMITS)
    write_checkpoint(folder / "teacher", model, tokenizer, card, [])
    return folder


@pytest.fixture
def classifier(task: Path) -> Classifier:
    return Classifier(task / "teacher")


@pytest.fixture
def url(classifier: Classifier) -> Iterator[str]:
    with classifier.run() as url:
        yield url


@pytest.fixture(scope="module")
def examples(task: Path) -> list[RankingExample]:
    return read_judged(JudgedSet(path="nouns"), task)


LONG = Candidate("long", "a </s> of <s>", "the kettle " * 30)


def test_a_folder_alone_gives_the_ids_that_transformers_gives(
    task: Path, examples: list[RankingExample]
) -> None:
    ours = checkpoint_encoder(task / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(task / "teacher")  # type: ignore[no-untyped-call]
    theirs = decoder_encoder(tokenizer, **LIMITS)
    assert ours.fingerprint == theirs.fingerprint
    for example in examples:
        candidates = [*example.candidates, LONG, Candidate("empty")]
        for mine, their in zip(
            ours.encode(example.query, candidates),
            theirs.encode(example.query, candidates),
            strict=True,
        ):
            np.testing.assert_array_equal(mine.input_ids, their.input_ids)
            assert mine.input_ids[-1] == tokenizer.eos_token_id


def test_labels_and_ids_equal_the_local_teachers(
    task: Path, classifier: Classifier, url: str, examples: list[RankingExample], tmp_path: Path
) -> None:
    text = RECIPE.format(url=url, tokenizer=task / "teacher")
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    arguments = ["label", str(tmp_path / "recipe.toml"), "--data", str(task)]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    local = LabelRecipe.model_validate(
        {
            "name": "local",
            "teacher": str(task / "teacher"),
            "teacher_kind": "cross-encoder",
            "sources": [{"kind": "judged", "path": "nouns"}],
        }
    )
    expected = load_teacher(local).score(examples)
    found = read_labels(tmp_path / "classified")
    assert np.std(np.concatenate(expected)) > 0.01  # the toy's scores differ
    for example, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(example.teacher_scores or (), scores, atol=1e-5)
    encoder = checkpoint_encoder(task / "teacher")
    sent = sorted(ids for body in classifier.asked for ids in body["input"])
    own = [pair for e in examples for pair in encoder.encode(e.query, e.candidates)]
    assert sent == sorted(pair.input_ids.tolist() for pair in own)
    assert all(len(body["input"]) <= 3 for body in classifier.asked)
    assert all(body["use_activation"] is False for body in classifier.asked)


def test_a_model_of_several_classes_is_no_ranker(
    task: Path, classifier: Classifier, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"index": 0, "label": "x", "probs": [0.4, 0.6], "num_classes": 2}
    monkeypatch.setattr(classifier, "answer", lambda *_: (200, {}, {"data": [row]}))
    encoder = checkpoint_encoder(task / "teacher")
    scorer = RemoteScorer(url, "vllm-classify", model="teacher", encoder=encoder)
    with pytest.raises(RemoteError, match="the model has 2 classes; a ranker has 1"):
        scorer.score("kettle", [LONG])
    scorer.close()


@pytest.mark.parametrize("mistake", ["absent", "no </s>", "a BERT's"])
def test_a_folder_without_a_decoders_tokenizer_is_refused(
    mistake: str, task: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(task / "teacher", folder)
    match mistake:
        case "absent":
            (folder / "tokenizer.json").unlink()
        case "no </s>":
            (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
        case _:
            (folder / CARD).unlink()
    options = RemoteOptions(protocol="vllm-classify", tokenizer=folder)
    message = "no tokenizer|no end-of-sequence|no checkpoint of a decoder"
    with pytest.raises(RecipeError, match=message):
        RemoteTeacher("http://127.0.0.1:1", options)


@pytest.mark.parametrize(
    "fields", [{"protocol": "vllm-classify"}, {"protocol": "tei", "tokenizer": "x"}]
)
def test_token_ids_and_their_tokenizer_need_each_other(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="need each other"):
        RemoteOptions.model_validate(fields)
    with pytest.raises(ValueError, match="need each other"):
        RemoteScorer("http://127.0.0.1:1", "vllm-classify")
