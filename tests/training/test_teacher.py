"""Teachers against sentence-transformers over the same toy weights."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaModel

from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_checkpoint, tiny_tokenizer
from training.recipe import LabelRecipe, RecipeError, Retrieved
from training.teacher import batches, load_teacher, readable

LONG = "boil the water in the kettle " * 40
EXAMPLES = [
    RankingExample(
        "q1",
        "boil water",
        (Candidate("a", "Kettle", "boil water in it"), Candidate("b", "", "a dog and a cat")),
    ),
    RankingExample("q2", "capital", (Candidate("c", "", LONG),)),
    RankingExample(
        "q3",
        "Wörter, 2 (two)!",
        tuple(Candidate(str(n), "the cat " * n, "of " * (9 - n)) for n in range(9)),
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("teacher") / "checkpoint")


def recipe(checkpoint: Path, kind: str, *, batch_tokens: int = 300) -> LabelRecipe:
    source = Retrieved(path=Path("none"))
    fields = {"name": "toy", "teacher": str(checkpoint), "teacher_kind": kind, "max_length": 64}
    return LabelRecipe.model_validate({**fields, "sources": [source], "batch_tokens": batch_tokens})


def test_bi_encoder_is_sentence_transformers_cosine(checkpoint: Path) -> None:
    body = Transformer(str(checkpoint), max_seq_length=64)
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    reference = SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu")
    found = load_teacher(recipe(checkpoint, "bi-encoder")).score(EXAMPLES)
    for example, scores in zip(EXAMPLES, found, strict=True):
        texts = [document_text(candidate) for candidate in example.candidates]
        vectors = reference.encode([example.query, *texts])
        np.testing.assert_allclose(scores, vectors[1:] @ vectors[0], atol=1e-5)
        assert scores.dtype == np.float32


def test_cross_encoder_is_sentence_transformers_raw_logit(checkpoint: Path) -> None:
    reference = CrossEncoder(
        str(checkpoint), max_length=64, activation_fn=torch.nn.Identity(), device="cpu"
    )
    found = load_teacher(recipe(checkpoint, "cross-encoder")).score(EXAMPLES)
    spread = float(np.ptp(np.concatenate(found)))
    for example, scores in zip(EXAMPLES, found, strict=True):
        texts = [document_text(candidate) for candidate in example.candidates]
        expected = reference.predict([(example.query, text) for text in texts])
        np.testing.assert_allclose(scores, expected, atol=1e-5 * spread)
        assert scores.dtype == np.float32


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_text_is_cut_to_what_the_teacher_can_read(kind: str, checkpoint: Path) -> None:
    whole, more = (
        load_teacher(recipe(checkpoint, kind).model_copy(update={"max_length": length}))
        for length in (256, 400)
    )
    longest = [RankingExample("q", "capital", (Candidate("c", "", LONG * 3), Candidate("d", "x")))]
    assert more.score(longest)[0].tolist() == whole.score(longest)[0].tolist()


def test_a_robertas_first_places_are_no_room() -> None:
    config = RobertaConfig(max_position_embeddings=66, num_hidden_layers=1, vocab_size=9)  # type: ignore[no-untyped-call]
    model = RobertaModel(config)  # type: ignore[no-untyped-call]
    assert [readable(model, length) for length in (63, 64, 65)] == [63, 64, 64]


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_an_overlong_query_is_scored(kind: str, checkpoint: Path) -> None:
    example = RankingExample("q", LONG, (Candidate("a", "", "cat"), Candidate("b", "", LONG)))
    (scores,) = load_teacher(recipe(checkpoint, kind)).score([example])
    assert np.isfinite(scores).all()
    assert scores.shape == (2,)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_batching_changes_no_score(kind: str, checkpoint: Path) -> None:
    one = load_teacher(recipe(checkpoint, kind, batch_tokens=16)).score(EXAMPLES)
    all_at_once = load_teacher(recipe(checkpoint, kind, batch_tokens=100_000)).score(EXAMPLES)
    for left, right in zip(one, all_at_once, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_special_tokens_in_a_text_are_plain_text(checkpoint: Path) -> None:
    example = RankingExample("q", "cat", (Candidate("a", "", "[SEP] dog"), Candidate("b", "dog")))
    for kind in ("bi-encoder", "cross-encoder"):
        (scores,) = load_teacher(recipe(checkpoint, kind)).score([example])
        spelt = RankingExample("q", "cat", (Candidate("a", "", "[ sep ] dog"),))
        (expected,) = load_teacher(recipe(checkpoint, kind)).score([spelt])
        np.testing.assert_allclose(scores[0], expected[0], rtol=1e-5)


def test_a_teacher_with_two_labels_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=2,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(RecipeError, match="has 2 labels; a ranker has 1"):
        load_teacher(recipe(tmp_path, "cross-encoder"))


def test_a_cross_encoder_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "headless")
    path = checkpoint / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if not k.startswith("classifier")}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"lacks classifier\.bias, classifier\.weight"):
        load_teacher(recipe(checkpoint, "cross-encoder"))


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_teacher_that_cannot_be_loaded_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="absent"):
        load_teacher(recipe(tmp_path / "absent", kind))
    damaged = tiny_checkpoint(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"x" * 64)
    with pytest.raises(RecipeError, match="damaged"):
        load_teacher(recipe(damaged, kind))


def test_batches_hold_every_row_once_within_the_budget() -> None:
    rows = [[0] * length for length in (5, 1, 9, 3, 3, 40, 2, 7)]
    found = batches(rows, 20)
    assert sorted(place for batch in found for place in batch) == list(range(len(rows)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(len(rows[place]) for place in batch) <= 20
    assert [5] in found  # longer than the budget: alone
    assert len(found) < len(rows)


def test_less_than_a_tenth_is_padding_whatever_the_lengths() -> None:
    draw = random.Random(0)
    for spread in (3.0, 0.8, 0.2):
        rows = [[0] * (8 + int(draw.expovariate(spread) * 40)) for _ in range(300)]
        found = batches(rows, 8192)
        padded = sum(len(batch) * max(len(rows[place]) for place in batch) for batch in found)
        assert sum(map(len, rows)) > 0.9 * padded
        assert len(found) < 60
