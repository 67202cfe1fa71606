"""Systems by path: what a checkpoint, a folder of labels and a run say of the same query."""

from __future__ import annotations

import math
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
from tests.training.sets import write_small_set
from tests.training.toy import write_toy_set
from training.__main__ import main
from training.data import read_judged
from training.judged import read_judged_queries
from training.recipe import JudgedSet, RecipeError
from training.systems import Model, load_system, load_systems
from training.teacher import BiEncoder

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


def bm25_by_hand(query: list[str], document: list[str], documents: list[list[str]]) -> float:
    """Robertson's formula with Lucene's idf, k1 = 1.5, b = 0.75."""
    mean = sum(map(len, documents)) / len(documents)
    total = 0.0
    for word in query:
        having = sum(word in other for other in documents)
        idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        count = document.count(word)
        length = 1 - 0.75 + 0.75 * len(document) / mean
        total += idf * count / (count + 1.5 * length)
    return total


def test_bm25_ranks_over_the_documents_of_the_whole_set(tmp_path: Path) -> None:
    write_small_set(tmp_path)
    judged = read_judged_queries(JudgedSet(path="small"), tmp_path)
    system = load_system(Path("bm25"))
    found = {query.query_id: query for query in judged.score(system)}
    words = [["capital", "france"], ["kettle", "boil", "water", "kettle"]]  # less stop words
    assert found["q1"].scores == pytest.approx(
        [bm25_by_hand(["boil", "water"], document, words) for document in words], abs=1e-6
    )
    assert found["q1"].scores[1] > found["q1"].scores[0] == 0
    alone = system.score(replace(EXAMPLE, query="nothing of this"))
    assert alone[1].tolist() == [0, 0]


def test_a_bi_encoder_scores_by_its_cosine(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "encoder")
    system = load_system(Path(f"bi-encoder:{folder}"))
    documents, scores = system.score(EXAMPLE)
    assert documents == ["a", "#1"]
    encoder = BiEncoder(str(folder), max_length=256, batch_tokens=64)
    query, first, second = encoder.embed(["boil water", "Kettle boil water", "the dog"])
    assert scores == pytest.approx([float(query @ first), float(query @ second)], abs=1e-5)


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
