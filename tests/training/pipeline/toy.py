"""A pipeline over the toy set `nouns`: a student that learns in seconds, and its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from tests.tiny import tiny_base
from tests.training.decoders import write_nouns_set

TRAIN = {"kind": "judged", "path": "nouns", "split": "train"}
HELD_OUT = {"path": "nouns", "split": "val"}

STUDENT: dict[str, Any] = {
    "name": "any",
    "epochs": 3,
    "rows_per_call": 48,
    "evaluate_every": 4,
    "save_every": 2,
    "student": {"max_length": 48, "max_query_length": 8},
    "optimiser": {"learning_rate": 3e-3},
    "train": [{"teacher": "grades", "source": TRAIN}],
    "validation": [HELD_OUT],
}


def write_task(folder: Path, *, queries: int = 40) -> Path:
    """Write data, a base, the student's recipe and the judged sets; return the folder."""
    write_nouns_set(folder / "data", queries=queries)
    base = str(tiny_base(folder / "bert"))
    write_toml(folder / "student.toml", STUDENT | {"student": STUDENT["student"] | {"base": base}})
    write_toml(folder / "sets.toml", {"sets": [HELD_OUT]})
    return folder


def write_pipeline(folder: Path, *stages: dict[str, Any], **fields: Any) -> Path:
    """Write a pipeline's recipe, named `exp` unless fields say otherwise."""
    return write_toml(folder / "exp.toml", {"name": "exp", "stages": list(stages), **fields})


def write_toml(path: Path, fields: dict[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(fields), encoding="utf-8")
    return path


def student(name: str = "student", **over: Any) -> dict[str, Any]:
    """Return a stage that trains the student."""
    return {"stage": "distill", "name": name, "recipe": "student.toml", "set": over}


def bundle(of: str, name: str = "bundle") -> dict[str, Any]:
    """Return a stage that exports what another wrote."""
    return {"stage": "export", "name": name, "checkpoint": of, "precision": ["fp32"]}
