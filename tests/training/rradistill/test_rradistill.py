"""RRADistill from candidates to a student and to RRA-GPT, and each part of it alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.__main__ import main as export
from service.contract.checkpoint import read_card
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_base, tiny_checkpoint
from tests.training.decoders import scores_by_hand, tiny_mistral, write_nouns_set
from tests.training.prompting.openai_server import Server, oracle, said
from training.__main__ import main
from training.data import read_judged, read_labels
from training.decoder import score_decoder_pairs
from training.losses import IGNORED, ordered_pairs
from training.recipe import JudgedSet, Labels, RecipeError
from training.rradistill.joint_model import build_joint
from training.rradistill.reasons import read_reasons
from training.rradistill.recipes import RraGptRecipe
from training.rradistill.rra_gpt import joint_loss, read_labelled
from training.rradistill.select import ends
from training.shards import Inputs, encode_shard, shard_path
from training.systems import load_system
from training.taught import Group
from training.teacher_recipes import Decoder, Lora


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    tiny_mistral(folder / "base")
    tiny_mistral(folder / "tied", tied=True)
    write_nouns_set(folder, queries=40)
    return folder


def test_a_selection_keeps_the_first_and_the_last_in_order() -> None:
    example = RankingExample(
        *("q", "x", tuple(Candidate(name) for name in "abcdef")),
        grades=(0, 1, 2, 3, 4, 5),
        teacher_scores=(3, 9, 1, 7, 5, 2),
    )
    found = ends(example, top=2, bottom=1)
    assert [one.id for one in found.candidates] == ["b", "d", "c"]
    assert (found.grades, found.teacher_scores) == ((1, 3, 2), None)
    few = ends(example, top=4, bottom=4)
    assert [one.id for one in few.candidates] == ["b", "d", "e", "a", "f", "c"]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_from_candidates_to_a_student_and_an_rra_gpt(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(task), "--out", str(tmp_path)]
    ranker = tiny_checkpoint(tmp_path / "pre-ranker")
    scores = f"""
name = "scores"
teacher = "{ranker}"
teacher_kind = "cross-encoder"
sources = [{{ kind = "judged", path = "nouns", split = "train" }}]
"""
    assert main(["label", write(tmp_path / "scores.toml", scores), *arguments]) == 0
    selection = f'name = "selected"\nlabels = "{tmp_path / "scores"}"\ntop = 3\nbottom = 1\n'
    assert main(["select", write(tmp_path / "select.toml", selection), *arguments]) == 0
    assert main(["select", str(tmp_path / "select.toml"), *arguments]) == 0
    write(tmp_path / "select.toml", selection.replace("top = 3", "top = 2"))
    assert main(["select", str(tmp_path / "select.toml"), *arguments]) == 2
    assert "another recipe or of other labels" in capsys.readouterr().err

    def answer(path: str, body: dict[str, Any]) -> Any:
        prompt = body["messages"][0]["content"]
        return said("it is about that") if prompt.endswith("Reason:") else oracle(path, body)

    with Server(answer).run() as url:
        model = f'{{ kind = "endpoint", url = "{url}", model = "m" }}'
        prompting = f'name = "t"\nmethod = "tiers"\norder = "given"\nshown = 3\nmodel = {model}\n'
        teacher = write(tmp_path / "tiers.toml", prompting)
        labels = f"""
name = "tiers"
teacher = "{teacher}"
teacher_kind = "prompted"
sources = [{{ kind = "retrieved", path = "{tmp_path / "selected"}" }}]
"""
        assert main(["label", write(tmp_path / "label.toml", labels), *arguments]) == 0
        why = f'name = "why"\nlabels = "{tmp_path / "tiers"}"\nmodel = {model}\n'
        assert main(["reasons", write(tmp_path / "reasons.toml", why), *arguments]) == 0
    tiers = read_labels(tmp_path / "tiers")
    for example in tiers:
        word = example.query.split()[0]
        good = [word in one.summary.split() for one in example.candidates[:3]]
        assert example.teacher_scores is not None
        expected = [1.0 if one else 0.0 for one in good] + [-1.0 if any(good) else 0.0]
        assert list(example.teacher_scores) == expected
    lines = (tmp_path / "why" / "reasons.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == sum(
        len(example.candidates) for example in tiers if any(example.teacher_scores or ())
    )
    assert json.loads(lines[0])["reason"] == "it is about that"

    student = f"""
name = "student"
loss = "ranknet"
student = {{ base = "{tiny_base(tmp_path / "bert")}", max_length = 48, max_query_length = 8 }}
train = [{{ teacher = "labels", source = {{ kind = "labels", path = "{tmp_path / "tiers"}" }} }}]
validation = [{{ path = "nouns", split = "val" }}]
"""
    assert main(["distill", write(tmp_path / "distill.toml", student), *arguments]) == 0

    gpt = f"""
name = "gpt"
reasons = "{tmp_path / "why"}"
epochs = 4
group_size = 4
groups_per_step = 8
groups_per_call = 3
evaluate_every = 8
model = {{ base = "{task / "base"}", max_length = 32, max_query_length = 12 }}
optimiser = {{ learning_rate = 2e-3 }}
train = [{{ kind = "labels", path = "{tmp_path / "tiers"}" }}]
validation = [{{ path = "nouns", split = "val" }}]
"""
    assert main(["rra_gpt", write(tmp_path / "gpt.toml", gpt), *arguments]) == 0
    checkpoint = tmp_path / "gpt" / "checkpoint"
    card = read_card(checkpoint)
    assert card.template == DECODER_TEMPLATE
    first, *_, last = card.metrics["history"]
    assert last["loss"] < first["loss"]
    held_out = read_judged(JudgedSet(path="nouns", split="val"), task)[:2]
    system = load_system(checkpoint)
    for example, expected in zip(held_out, scores_by_hand(checkpoint, held_out), strict=True):
        assert system.score(example)[1] == pytest.approx(expected, abs=1e-4)
    bundle = ["bundle", str(checkpoint), str(tmp_path / "bundle"), "--name", "gpt"]
    assert export(bundle) == 0


@pytest.fixture
def labels(task: Path, tmp_path: Path) -> Path:
    """Return a folder with labels of two queries' documents."""
    return write_labels(tmp_path / "labels", task, [2, 1, 0, -1], [2, 1, 0, -1])


def write_labels(folder: Path, task: Path, *queries: list[int]) -> Path:
    examples = read_judged(JudgedSet(path="nouns"), task)[: len(queries)]
    scores = [np.array(values, dtype=np.float32) for values in queries]
    folder.mkdir()
    content = encode_shard(Inputs(0, "", tuple(examples)), scores)
    shard_path(folder, 0).write_bytes(content)
    shards = {shard_path(folder, 0).name: hashlib.sha256(content).hexdigest()}
    (folder / "labels.json").write_text(json.dumps({"teacher": "t", "shards": shards}))
    return folder


def joint_recipe(task: Path, labels: Path, base: str = "base", **fields: Any) -> RraGptRecipe:
    model = Decoder(base=str(task / base), max_length=32, max_query_length=12, **fields)
    return RraGptRecipe(
        name="gpt",
        model=model,
        train=(Labels(path=labels),),
        validation=(JudgedSet(path="nouns", split="val"),),
    )


def test_nothing_is_asked_of_labels_that_are_all_alike(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_labels(tmp_path / "labels", task, [2, 1, 0, -1], [0, 0, 0, 0])
    with Server(lambda *_: said("it is so")).run() as url:
        model = f'{{ kind = "endpoint", url = "{url}", model = "m" }}'
        recipe = write(tmp_path / "r.toml", f'name = "why"\nlabels = "{folder}"\nmodel = {model}\n')
        assert main(["reasons", recipe, "--data", str(task), "--out", str(tmp_path)]) == 0
    assert {query for query, _ in read_reasons(tmp_path / "why")} == {"q0"}
    assert "4 questions asked" in capsys.readouterr().out


def test_reasons_of_other_labels_are_refused(task: Path, labels: Path) -> None:
    recipe = joint_recipe(task, labels)
    _, _, encoder = build_joint(recipe.model, precision="no", seed=0)
    with pytest.raises(RecipeError, match="has reasons of other labels"):
        read_labelled(recipe, task, encoder, {("q0", "gone"): "water"})


@torch.no_grad()
def of_row(
    model: nn.Module, ids: torch.Tensor, labels: torch.Tensor, *, last: int
) -> tuple[float, float]:
    """Return a row's score, of its token `last`, and its writing loss."""
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    score, loss = model(**whole, labels=labels, last=torch.tensor([last]))
    return float(score), float(loss)


@pytest.mark.parametrize(("base", "lora"), [("base", None), ("tied", None), ("base", Lora())])
def test_the_score_is_the_same_with_the_reason_appended(
    base: str, lora: Lora | None, task: Path, labels: Path
) -> None:
    recipe = joint_recipe(task, labels, base, lora=lora)
    model, tokenizer, encoder = build_joint(recipe.model, precision="no", seed=0)
    model.train(False)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    example = read_judged(JudgedSet(path="nouns"), task)[0]
    pairs = encoder.encode(example.query, example.candidates)
    with torch.no_grad():
        alone = score_decoder_pairs(model.scorer, pairs, pad=pad, eos=eos, rows=4)
        by_part = score_decoder_pairs(model, pairs, pad=pad, eos=eos, rows=4)
    assert torch.equal(alone, by_part)
    for text in ("yes it is about that", "no", "water " * 20):
        (reason,) = encoder.encode_texts([text])
        for pair, score in zip(pairs, alone, strict=True):
            ids = torch.tensor([[*pair.input_ids.tolist(), *reason.tolist(), eos]])
            found, _ = of_row(model, ids, ids, last=len(pair) - 1)
            assert found == pytest.approx(float(score), abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_and_writing_do_not_depend_on_padding(side: str, task: Path, labels: Path) -> None:
    recipe = joint_recipe(task, labels)
    model, _, encoder = build_joint(recipe.model, precision="no", seed=0)
    model.train(False)
    example = read_judged(JudgedSet(path="nouns"), task)[0]
    pairs = encoder.encode(example.query, example.candidates)
    answers = encoder.encode_texts(["yes", "no it is not about water", "yes it is", "no"])
    rows = [[*pair.input_ids, *ids] for pair, ids in zip(pairs, answers, strict=True)]
    width = max(map(len, rows)) + 3
    ids, mask = torch.full((4, width), 2), torch.zeros(4, width, dtype=torch.long)
    wanted, last = torch.full((4, width), IGNORED), torch.zeros(4, dtype=torch.long)
    scores, written = [], 0.0
    for n, (pair, row) in enumerate(zip(pairs, rows, strict=True)):
        start = width - len(row) if side == "left" else 0
        alone, whole = torch.tensor([row]), slice(start, start + len(row))
        ids[n, whole], mask[n, whole], last[n] = alone[0], 1, start + len(pair) - 1
        own = torch.tensor([[IGNORED] * len(pair) + row[len(pair) :]])
        wanted[n, whole] = own[0]
        score, loss = of_row(model, alone, own, last=len(pair) - 1)
        scores.append(score)
        written += loss
    with torch.no_grad():
        found, total = model(input_ids=ids, attention_mask=mask, labels=wanted, last=last)
    assert found.tolist() == pytest.approx(scores, abs=1e-5)
    assert float(total) == pytest.approx(written, rel=1e-5)


def test_the_joint_loss_is_ranking_and_writing_by_hand(task: Path, labels: Path) -> None:
    recipe = joint_recipe(task, labels).model_copy(update={"gamma": 0.5})
    model, tokenizer, encoder = build_joint(recipe.model, precision="no", seed=0)
    model.train(False)
    names = [one.id for one in read_judged(JudgedSet(path="nouns"), task)[0].candidates]
    reasons = {("q0", str(names[0])): "water"}
    queries = read_labelled(recipe, task, encoder, reasons)
    groups = [Group(query, np.arange(4)) for query in queries]
    drawn = [(group, ordered_pairs(torch.from_numpy(group.query.teacher))) for group in groups]
    with torch.no_grad():
        whole = joint_loss(model, drawn, drawn, encoder=encoder, recipe=recipe)
        shares = [joint_loss(model, [one], drawn, encoder=encoder, recipe=recipe) for one in drawn]
    assert float(whole) == pytest.approx(float(sum(shares)), abs=1e-5)

    rank = written = 0.0
    tokens = 0
    for number, query in enumerate(queries):
        pairs = [encoder.splice(query.query_ids, query.document_ids[n]) for n in range(4)]
        scores = []
        for place, pair in enumerate(pairs):
            label = "yes" if place < 2 else "no"
            text = f"{label} water" if (number, place) == (0, 0) else label
            wanted = [*tokenizer(text, add_special_tokens=False)["input_ids"], 2]
            ids = torch.tensor([[*pair.input_ids.tolist(), *wanted]])
            with torch.no_grad():
                scores.append(float(model.scorer(ids[:, : len(pair)]).logits))
                states = model.scorer.model(ids).last_hidden_state
                logs = model.output(states)[0].log_softmax(dim=1)
            written -= sum(float(logs[len(pair) + n - 1, one]) for n, one in enumerate(wanted))
            tokens += len(wanted)
        rank += sum(
            np.log1p(np.exp(scores[b] - scores[a])) for a in range(4) for b in range(a + 1, 4)
        )
    assert float(whole) == pytest.approx(rank / 12 + 0.5 * written / tokens, abs=1e-4)
