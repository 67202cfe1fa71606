"""Other decoders' ways to score: against transformers by hand, and through every command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from export.__main__ import main as export
from service.contract.checkpoint import read_card
from service.contract.types import RankingExample
from tests.training.decoders import tiny_mistral, write_nouns_set
from training.__main__ import main
from training.baselines.likelihood_scorer import score_by_likelihood
from training.baselines.mean_scorer import build_mean_scorer, check_both_directions, score_by_mean
from training.baselines.scorers import WAYS
from training.data import read_judged, read_labels
from training.recipe import JudgedSet, RecipeError
from training.systems import load_system
from training.teacher_recipes import Decoder, Lora, Scorer

SFT = """
name = "{name}"
scorer = "{scorer}"
loss = "{loss}"
group_size = 4
groups_per_step = 8
groups_per_call = 4
epochs = {epochs}
evaluate_every = 8
model = {{ base = "{base}", max_length = 32, max_query_length = 12{lora} }}
optimiser = {{ learning_rate = 2e-3 }}
train = [{{ kind = "judged", path = "nouns", split = "train" }}]
validation = [{{ path = "nouns", split = "val" }}]
"""
LABELS = """
name = "{name}-labels"
teacher = "{teacher}"
teacher_kind = "cross-encoder"
[[sources]]
kind = "judged"
path = "nouns"
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    tiny_mistral(folder / "base")
    write_nouns_set(folder, queries=40)
    return folder


def spec(task: Path, **fields: Any) -> Decoder:
    return Decoder(base=str(task / "base"), max_length=32, max_query_length=12, **fields)


def examples(task: Path) -> list[RankingExample]:
    return read_judged(JudgedSet(path="nouns", split="val"), task)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_the_mean_is_of_states_that_see_everything(task: Path, lora: Lora | None) -> None:
    model, tokenizer, encoder = build_mean_scorer(spec(task, lora=lora), precision="no", seed=0)
    model.train(False)
    pairs = encoder.encode(examples(task)[0].query, examples(task)[0].candidates)
    ends: dict[str, Any] = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id}
    with torch.no_grad():
        scores = score_by_mean(model, pairs, rows=3, **ends)
    bare: Any = model if lora is None else model.get_base_model()  # type: ignore[operator]
    head = bare.score if lora is None else bare.score.modules_to_save.default
    for pair, score in zip(pairs, scores, strict=True):
        ids = torch.from_numpy(pair.input_ids)[None]
        seen = torch.zeros(1, 1, len(pair), len(pair))  # added to the scores: nothing is hidden
        with torch.no_grad():
            states = bare.model(input_ids=ids, attention_mask=seen).last_hidden_state
            assert float(score) == pytest.approx(float(head(states.mean(dim=1))), abs=1e-5)


@pytest.mark.parametrize("attention", ["eager", "causal"])
def test_a_model_that_takes_no_mask_is_refused(attention: str, task: Path) -> None:
    class Causal(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            states = input_ids.cumsum(dim=1)[:, :, None].float()
            return SimpleNamespace(hidden_states=(states,))

    model: torch.nn.Module = Causal()
    if attention == "eager":  # adds a mask of booleans to its scores
        model = AutoModelForSequenceClassification.from_pretrained(
            task / "base", attn_implementation="eager"
        )
    with pytest.raises(RecipeError, match="cannot be read in both directions"):
        check_both_directions(model, "it")


def test_the_likelihood_is_that_of_the_query_after_the_document(task: Path) -> None:
    model, tokenizer, encoder = WAYS["likelihood"].build(spec(task), precision="no", seed=0)
    model.train(False)
    example = examples(task)[0]
    pairs = encoder.encode(example.query, example.candidates)
    with torch.no_grad():
        scores = score_by_likelihood(model, pairs, pad=None, eos=2, rows=3)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    query = ids(example.query)
    for candidate, pair, score in zip(example.candidates, pairs, scores, strict=True):
        given = [1, *ids(candidate.title), *ids(":"), *ids(candidate.summary), *ids(":")]
        assert pair.input_ids.tolist() == [*given, *query]
        with torch.no_grad():
            logs = model(torch.tensor([[*given, *query]])).logits[0].log_softmax(dim=1)
        each = [float(logs[len(given) + n - 1, one]) for n, one in enumerate(query)]
        assert float(score) == pytest.approx(np.mean(each), abs=1e-5)


def test_a_long_document_is_cut_and_the_query_is_not(task: Path) -> None:
    _, _, encoder = WAYS["likelihood"].build(spec(task), precision="no", seed=0)
    example = examples(task)[0]
    long = replace(example.candidates[0], summary="water " * 50)
    (pair,) = encoder.encode(example.query, [long])
    query = encoder.encode_query(example.query)
    assert pair.input_ids[pair.first_segment :].tolist() == query.tolist()
    assert len(pair) == 31  # the frame's place for </s> is left free


@pytest.mark.parametrize(
    ("scorer", "loss", "lora"),
    [
        ("mean", "ranknet", False),
        ("mean", "softmax", True),
        ("likelihood", "ranknet", True),
        ("last-token", "softmax", True),
    ],
)
def test_a_decoder_is_trained_compared_and_labels(
    scorer: Scorer, loss: str, lora: bool, task: Path, tmp_path: Path
) -> None:
    name = f"{scorer}-{loss}"
    rank = ", lora = { rank = 4 }" if lora else ""
    recipe = tmp_path / "sft.toml"
    base = task / "base"
    fields = {"name": name, "scorer": scorer, "loss": loss, "base": base, "lora": rank}
    recipe.write_text(SFT.format(epochs=4, **fields), encoding="utf-8")
    arguments = ["--data", str(task), "--out", str(tmp_path)]
    assert main(["sft", str(recipe), *arguments]) == 0
    checkpoint = tmp_path / name / "checkpoint"
    card = read_card(checkpoint)
    assert card.template == WAYS[scorer].template
    first, *_, last = card.metrics["history"]
    assert last["loss"] < first["loss"]
    (tmp_path / "labels.toml").write_text(LABELS.format(name=name, teacher=checkpoint), "utf-8")
    assert main(["label", str(tmp_path / "labels.toml"), *arguments]) == 0
    system = load_system(checkpoint)
    served = 0 if scorer == "last-token" else 2  # the service knows no other way to score
    assert export(["bundle", str(checkpoint), str(tmp_path / "bundle")]) == served
    for example in read_labels(tmp_path / f"{name}-labels")[:5]:
        _, scores = system.score(example)
        assert example.teacher_scores == pytest.approx(scores, abs=1e-4)
