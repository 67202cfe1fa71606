"""Systems by path: what a checkpoint, a folder of labels and a run say of the same query."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from service.contract.checkpoint import CARD, Card
from service.contract.encoding import PairEncoder
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_checkpoint
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.recipe import JudgedSet, RecipeError
from training.systems import Model, load_system, load_systems

EXAMPLE = RankingExample(
    "q", "boil water", (Candidate("a", "Kettle", "boil water"), Candidate(None, "", "the dog"))
)


def test_a_checkpoint_scores_as_torch_does(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "run" / "checkpoint")
    system = load_system(folder)
    documents, scores = system.score(EXAMPLE)
    assert documents == ["a", "#1"]
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    encoder = PairEncoder.from_file(folder / "tokenizer.json", max_length=256, max_query_length=64)
    for pair, score in zip(encoder.encode(EXAMPLE.query, EXAMPLE.candidates), scores, strict=True):
        with torch.inference_mode():
            logit = model(
                input_ids=torch.from_numpy(pair.input_ids)[None].long(),
                token_type_ids=torch.from_numpy(pair.token_type_ids)[None].long(),
            ).logits
        assert score == pytest.approx(logit.item(), abs=1e-5)


def test_a_label_folder_has_its_teachers_scores(tmp_path: Path) -> None:
    write_toy_set(tmp_path, queries=3)
    teacher = tiny_checkpoint(tmp_path / "teacher")
    recipe = tmp_path / "labels.toml"
    recipe.write_text(
        f'name = "toy-labels"\nteacher = "{teacher}"\nteacher_kind = "cross-encoder"\n'
        '[[sources]]\nkind = "judged"\npath = "toy"\n',
        encoding="utf-8",
    )
    out = tmp_path / "runs"
    assert main(["label", str(recipe), "--data", str(tmp_path), "--out", str(out)]) == 0
    labels, model = load_system(out / "toy-labels"), load_system(teacher)
    assert labels.name == "toy-labels labels"
    for example in read_judged(JudgedSet(path="toy"), tmp_path):
        found, expected = (
            dict(zip(*system.score(example), strict=True)) for system in (labels, model)
        )
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_query_that_a_run_does_not_have_has_no_documents(tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text("other Q0 a 1 1 t\n", encoding="utf-8")
    documents, scores = load_system(tmp_path / "x.run").score(EXAMPLE)
    assert (documents, scores.tolist()) == ([], [])


def test_systems_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.run").write_text("q Q0 a 1 1 t\n", encoding="utf-8")
    paths = [tmp_path / name / "x.run" for name in ("a", "b")]
    assert [system.name for system in load_systems(paths)] == [f"x ({path})" for path in paths]


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint")
    system = load_system(folder)
    assert isinstance(system, Model)
    broken = replace(system, score_pairs=lambda pairs: np.full(len(pairs), np.nan, np.float32))
    with pytest.raises(RecipeError, match="a score of query 'q' is not finite"):
        broken.score(EXAMPLE)


def test_a_checkpoint_for_other_pairs_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint")
    (folder / CARD).write_text(Card(template="other-1").model_dump_json(), encoding="utf-8")
    with pytest.raises(RecipeError, match="is made for 'other-1' pairs, which nobody knows"):
        load_system(folder)
