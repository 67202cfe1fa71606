"""What a student is taught of a source: its scores, or their order alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.contract.examples import write_examples
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_base
from training.recipe import DistillRecipe, Student
from training.student import build_student, pair_encoder
from training.taught import read_taught


def test_places_keep_the_order_of_scores_and_nothing_else(tmp_path: Path) -> None:
    candidates = tuple(Candidate(name, "", name) for name in "abcd")
    examples = [
        RankingExample("q1", "cat", candidates, (0.5, 9.0, 0.5, -3.0)),
        RankingExample("q2", "dog", candidates, (1.0, 2.0, 3.0, 4.0)),
    ]
    write_examples(tmp_path / "graded.jsonl", examples)
    student = Student(base=str(tiny_base(tmp_path / "base")), max_length=16, max_query_length=4)
    _, tokenizer = build_student(student, seed=0)
    source = {"kind": "examples", "path": "graded.jsonl"}
    recipe = DistillRecipe.model_validate(
        {
            "name": "any",
            "student": student,
            "train": [{"teacher": "grades", "source": source, "places": True}],
            "validation": [{"path": "any"}],
        }
    )
    queries, teachers = read_taught(recipe, tmp_path, pair_encoder(tokenizer, student))
    (scale,) = teachers.values()
    found = [np.rint(query.teacher * scale.std + scale.mean).tolist() for query in queries]
    assert found == [[3, 4, 2, 1], [1, 2, 3, 4]]
