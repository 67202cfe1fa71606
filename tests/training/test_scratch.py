"""A language model from scratch: reads any text, is made alike each time, and can be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer

from service.contract.types import Candidate
from tests.training.decoders import write_clicks
from tests.training.kill import contents
from training.decoder import build_language_model, build_scorer, score_decoder_pairs
from training.recipe import RecipeError
from training.scratch import scratch
from training.teacher_recipes import ClickFiles, Decoder, ScratchRecipe


def recipe(**fields: object) -> ScratchRecipe:
    texts = (ClickFiles(paths=("clicks.jsonl",)),)
    sizes = {"vocabulary": 600, "hidden": 32, "layers": 2, "positions": 64}
    return ScratchRecipe.model_validate({"name": "base", "texts": texts, **sizes, **fields})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_clicks(folder / "clicks.jsonl", 200)
    return folder


@pytest.fixture(scope="module")
def base(data: Path) -> Path:
    return scratch(recipe(), data=data, out=data / "runs")


def test_the_same_recipe_and_seed_make_the_same_bytes(data: Path, base: Path) -> None:
    again = scratch(recipe(), data=data, out=data / "again")
    assert contents(again) == contents(base)
    other = scratch(recipe(seed=1), data=data, out=data / "other")
    differ = {name for name, found in contents(other).items() if found != contents(base)[name]}
    assert differ == {"model.safetensors", "scratch.json"}


def test_every_text_can_be_read_and_written_back(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)  # type: ignore[no-untyped-call]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    for text in ("the kettle", "naïve café", "Ω ≈ 東京 🙂", "tab\there"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).removeprefix(" ") == text
    words = tokenizer("the kettle", add_special_tokens=False)["input_ids"]
    assert len(words) == 2  # words of the corpus are tokens of their own


def test_it_can_be_pretrained_and_made_a_scorer(base: Path) -> None:
    spec = Decoder(base=str(base), max_length=48, max_query_length=16)
    model, _, _ = build_language_model(spec, precision="no", seed=0)  # checks packing, too
    assert model.config.tie_word_embeddings
    scorer, tokenizer, encoder = build_scorer(spec, precision="no", seed=0)
    pairs = encoder.encode("the kettle", [Candidate("a", "kettle", "of water"), Candidate("b")])
    ends = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id}
    with torch.no_grad():
        together = score_decoder_pairs(scorer.train(False), pairs, rows=2, **ends)
        alone = [score_decoder_pairs(scorer, [pair], rows=1, **ends).item() for pair in pairs]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_a_finished_model_is_kept_and_another_recipe_s_refused(data: Path, base: Path) -> None:
    before = (base / "model.safetensors").stat().st_mtime_ns
    assert scratch(recipe(), data=data, out=data / "runs") == base
    assert (base / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RecipeError, match="holds a model of another recipe"):
        scratch(recipe(layers=3), data=data, out=data / "runs")
    assert (base / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("sizes", [{"hidden": 33}, {"heads": 3, "hidden": 33}])
def test_heads_that_do_not_share_evenly_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="must be a multiple of heads"):
        recipe(**sizes)
