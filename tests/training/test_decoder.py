"""Decoders: which token is pooled, padding on either side, batches, and packed rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from service.contract.encoding import TokenPair
from service.contract.types import Candidate
from tests.tiny import tiny_base
from tests.training.decoders import sentence, tiny_mistral, trained_tokenizer
from training.decoder import (
    build_language_model,
    build_scorer,
    check_packing,
    score_decoder_pairs,
)
from training.losses import target_cross_entropy
from training.packing import batch, pack, targets
from training.recipe import RecipeError
from training.teacher_recipes import Decoder, Lora

CANDIDATES = [
    Candidate("a", "kettle", "the water is in a kettle"),
    Candidate("b", "", "dog"),
    Candidate("c", "capital " * 9, ""),
    Candidate("d"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mistral(tmp_path_factory.mktemp("base"))


def spec(base: Path, **fields: Any) -> Decoder:
    return Decoder(base=str(base), max_length=48, max_query_length=12, **fields)


def logits_of(model: torch.nn.Module, pairs: list[TokenPair], pad: int, side: str) -> torch.Tensor:
    """Return the logits of a batch padded by hand on either side."""
    width = max(map(len, pairs)) + 3
    ids = torch.full((len(pairs), width), pad)
    mask = torch.zeros_like(ids)
    for row, pair in enumerate(pairs):
        place = slice(width - len(pair), width) if side == "left" else slice(len(pair))
        ids[row, place] = torch.from_numpy(pair.input_ids)
        mask[row, place] = 1
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits[:, 0]
    return found


def test_left_right_and_no_padding_give_the_same_scores(base: Path) -> None:
    model, tokenizer, encoder = build_scorer(spec(base), precision="no", seed=0)
    model.train(False)
    pairs = encoder.encode("the cat", CANDIDATES)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.no_grad():
        alone = torch.cat(
            [score_decoder_pairs(model, [pair], pad=pad, eos=eos, rows=1) for pair in pairs]
        )
        together = score_decoder_pairs(model, pairs, pad=pad, eos=eos, rows=3)
    assert alone.std() > 0.01
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    for side in ("left", "right"):
        torch.testing.assert_close(logits_of(model, pairs, pad, side), alone, rtol=1e-4, atol=1e-5)


def test_the_score_is_the_head_on_the_hidden_state_of_the_closing_token(base: Path) -> None:
    model, tokenizer, encoder = build_scorer(spec(base), precision="no", seed=0)
    model.train(False)
    (pair,) = encoder.encode("the cat", CANDIDATES[:1])
    assert pair.input_ids[-1] == tokenizer.eos_token_id
    with torch.no_grad():
        body: Any = model.base_model
        hidden = body(input_ids=torch.from_numpy(pair.input_ids)[None]).last_hidden_state
        head: Any = model
        expected = hidden[0, -1] @ head.score.weight[0]
        (found,) = score_decoder_pairs(
            model, [pair], pad=tokenizer.pad_token_id, eos=tokenizer.eos_token_id, rows=1
        )
    torch.testing.assert_close(found, expected)


def test_padding_gets_a_token_of_its_own(base: Path, tmp_path: Path) -> None:
    for borrowed in (None, "</s>", "<unk>"):
        tokenizer = trained_tokenizer()
        tokenizer.pad_token = borrowed
        folder = tiny_mistral(tmp_path / str(borrowed).strip("</>"))
        tokenizer.save_pretrained(folder)
        model, found, _ = build_scorer(spec(folder), precision="no", seed=0)
        assert found.pad_token_id not in (
            found.eos_token_id,
            found.bos_token_id,
            found.unk_token_id,
        )
        assert model.config.pad_token_id == found.pad_token_id == 600
        embeddings: Any = model.get_input_embeddings()
        assert embeddings.num_embeddings == 601


def test_a_pair_that_is_not_closed_is_refused(base: Path) -> None:
    model, tokenizer, encoder = build_scorer(spec(base), precision="no", seed=0)
    (pair,) = encoder.encode("the cat", CANDIDATES[:1])
    cut = TokenPair(pair.input_ids[:-1], pair.first_segment)
    with pytest.raises(ValueError, match="pooled token is not </s>"):
        score_decoder_pairs(model, [cut], pad=600, eos=tokenizer.eos_token_id, rows=1)
    with pytest.raises(ValueError, match="padding is 2"):
        score_decoder_pairs(model, [pair], pad=2, eos=2, rows=1)


def test_a_model_that_pools_its_first_token_is_no_teacher(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer()
    tiny_base(tmp_path)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="no decoder that is pooled on its last token"):
        build_scorer(spec(tmp_path), precision="no", seed=0)


def test_a_base_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="absent"):
        build_scorer(spec(tmp_path / "absent"), precision="no", seed=0)


def test_lora_trains_adapters_and_the_head_alone(base: Path) -> None:
    model, _, _ = build_scorer(spec(base, lora=Lora(rank=4)), precision="bf16", seed=0)
    trained = {name for name, values in model.named_parameters() if values.requires_grad}
    assert all("lora_" in name or ".score." in name for name in trained)
    assert any(".score." in name for name in trained)
    for name, values in model.named_parameters():
        assert values.dtype == (torch.float32 if name in trained else torch.bfloat16)


def test_scores_in_bfloat16_are_told_apart_finely(base: Path, tmp_path: Path) -> None:
    model, tokenizer, encoder = build_scorer(spec(base), precision="no", seed=0)
    model.train(False)
    pairs = encoder.encode("the cat", CANDIDATES)
    ends = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = score_decoder_pairs(model, pairs, rows=4, **ends)
    assert scores.dtype == torch.float32
    assert (scores.bfloat16().float() != scores).all()


def test_packed_rows_lose_and_learn_what_single_rows_do(base: Path) -> None:
    model, _, encoder = build_language_model(spec(base), precision="no", seed=0)
    model.train(False)
    draw = random.Random(0)
    pairs = [
        encoder.splice(
            encoder.encode_query(sentence(draw, "cat")),
            encoder.encode_documents([Candidate(None, "kettle", sentence(draw, "dog"))])[0],
        )
        for _ in range(9)
    ]
    gradients, losses = [], []
    for rows, width in ((pack(pairs, 64), 64), ([[pair] for pair in pairs], 48)):
        model.zero_grad()
        inputs = batch(rows, width)
        labels = inputs.pop("labels")
        loss = target_cross_entropy(model(**inputs, use_cache=False).logits, labels)
        (loss / sum(map(targets, rows))).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append([values.grad.clone() for values in model.parameters()])  # type: ignore[union-attr]
    assert len(pack(pairs, 64)) < len(pairs)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5)


def test_the_query_is_given_and_the_rest_is_learnt(base: Path) -> None:
    _, tokenizer, encoder = build_language_model(spec(base), precision="no", seed=0)
    (pair,) = encoder.encode("the cat", [Candidate(None, "kettle", "water")])
    labels = batch([[pair]], 48)["labels"][0]
    learnt = labels[labels != -100].tolist()
    prompt = pair.input_ids[: pair.first_segment].tolist()
    assert tokenizer.convert_ids_to_tokens(prompt)[0] == "<s>"
    assert learnt == pair.input_ids[pair.first_segment :].tolist()
    assert tokenizer.convert_ids_to_tokens(learnt) == ["▁kettle", "▁", ":", "▁water", "</s>"]


def test_a_model_whose_packed_rows_would_mix_is_refused() -> None:
    config = BloomConfig(vocab_size=16, hidden_size=16, n_layer=1, n_head=2)  # type: ignore[no-untyped-call]
    with pytest.raises(RecipeError, match="packed row see each other"):
        check_packing(BloomForCausalLM(config), "bloom")


def test_transformers_pools_the_end_only_with_a_padding_of_its_own(base: Path) -> None:
    """The trap itself: with pad = eos, transformers pools the token before `</s>`."""
    model, tokenizer, encoder = build_scorer(spec(base), precision="no", seed=0)
    model.train(False)
    (pair,) = encoder.encode("the cat", CANDIDATES[:1])
    right = logits_of(model, [pair], tokenizer.pad_token_id, "right")
    model.config.pad_token_id = tokenizer.eos_token_id
    wrong = logits_of(model, [pair], tokenizer.eos_token_id, "right")
    assert (right - wrong).abs() > 1e-4
