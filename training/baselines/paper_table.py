"""The tables of DisRanker, as printed, with our own figures beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from training.figures import JudgedScores
from training.judged import JudgedQueries, read_judged_queries
from training.pipeline.comparison import Comparison, Measured, compare_arms
from training.pipeline.recipe import Figure
from training.pipeline.table import table
from training.recipe import EvaluatedSet, RecipeError, RecipePart
from training.system_names import is_named
from training.systems import load_system

Printed = Mapping[str, tuple[float, ...]]
"""PNR and nDCG@5 by row; nothing of a row that is not printed."""

TEACHERS: Printed = {
    "BERT-Base": (3.252, 0.8336),
    "BERT-large": (3.426, 0.8412),
    "GPT4-Pointwise": (3.01, 0.8251),
    "GPT4-Pairwise": (3.14, 0.8273),
    "GPT4-Listwise": (3.19, 0.8299),
    "TSRankGPT": (3.475, 0.8505),
    "RankLLaMA": (3.514, 0.8611),
    "LLM2Vec": (3.496, 0.8604),
    "DisRanker-Teacher": (3.546, 0.8709),
    "with CPT": (3.643, 0.8793),
}
STUDENTS: Printed = {
    "BERT-large distill": (3.352, 0.8367),
    "Instruction distillation": (3.538, 0.8464),
    "Point-wise": (3.534, 0.8496),
    "Margin-wise": (3.554, 0.8460),
    "Hybrid-loss": (3.593, 0.8536),
}
TABLES = {
    "Table 2: rankers of the teacher's side": TEACHERS,
    "Table 3: ways to distil into 6 layers": STUDENTS,
}
"""Source: DisRanker (Ye et al. 2024, arXiv:2411.04539), tables 2 and 3."""

FIGURES: tuple[Figure, ...] = ("pnr", "ndcg_at_5")
NOT_PRINTED = "Rows of neither table"


class TableRow(RecipePart):
    """A row with what we have for it."""

    row: str = Field(description="as printed, or a name of one's own")
    ours: str = Field("", description="what stands for it here, such as the language model's name")
    models: tuple[Path, ...] = Field(min_length=1, description="as --model of compare; one a seed")


class TableRecipe(RecipePart):
    """Judged sets, and systems by the rows of the printed tables."""

    sets: tuple[EvaluatedSet, ...] = Field(min_length=1)
    rows: tuple[TableRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_differ(self) -> Self:
        names = [row.row for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"row {twice[0]!r} is there twice; list its models together")
        paths = [str(path) for row in self.rows for path in row.models]
        if twice := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"model {twice[0]!r} is there twice")
        return self


def write_tables(recipe: TableRecipe, *, data: Path, json_to: Path | None = None) -> None:
    """Print both tables for each set, the printed figures beside ours with 95 % intervals.

    Args:
        recipe: Sets and rows.
        data: Folder the sets lie in.
        json_to: Where to write our figures as JSON too.

    Raises:
        RecipeError: A set or a system cannot be read.
    """
    for path in (path for row in recipe.rows for path in row.models):
        if not (path.exists() or is_named(str(path))):
            raise RecipeError(f"{path} is not there")  # before the others are scored for hours
    sets = [read_judged_queries(source, data) for source in recipe.sets]
    rows = {row.row: [_scores(path, sets) for path in row.models] for row in recipe.rows}
    found = {}
    for place, judged in enumerate(sets):
        compared = measure({name: [one[place] for one in runs] for name, runs in rows.items()})
        print(_section(judged, compared, recipe), flush=True)
        found[judged.name] = {
            name: {figure: _plain(one) for figure, one in figures.items()}
            for name, figures in compared.measured.items()
        }
    if json_to is not None:
        json_to.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(scored: Mapping[str, Sequence[Sequence[JudgedScores]]]) -> Comparison:
    """Return PNR and nDCG@5, of linear gain, of every row: over its seeds together and of each.

    Args:
        scored: Each run's scores of the same queries in the same order, by row.
    """
    return compare_arms(scored, FIGURES, baseline="", gain="linear", relevant_from=1)


def _scores(path: Path, sets: Sequence[JudgedQueries]) -> list[list[JudgedScores]]:
    """Return a system's scores of each set; of large ones no two are in memory at a time."""
    system = load_system(path)
    return [judged.score(system) for judged in sets]


def _section(judged: JudgedQueries, compared: Comparison, recipe: TableRecipe) -> str:
    printed = {name for rows in TABLES.values() for name in rows}
    others: Printed = {row.row: () for row in recipe.rows if row.row not in printed}
    ours = {row.row: row for row in recipe.rows}
    parts = [
        f"## {judged.name}\n",
        f"{len(judged.examples)} queries, 95 % bootstrap intervals over them; figures of several "
        "seeds are means. The printed ones are of the authors' own data and models: the order of "
        "the rows compares, the values do not.\n",
    ]
    for title, rows in (*TABLES.items(), (NOT_PRINTED, others)):
        if rows:
            lines = [_row(name, rows[name], ours.get(name), compared) for name in rows]
            heads = ["row", "PNR, printed", "nDCG@5, printed", "ours", "seeds", "PNR", "nDCG@5"]
            parts += [f"### {title}\n", table(heads, lines)]
    return "\n".join(parts)


def _row(
    name: str, printed: Sequence[float], row: TableRow | None, compared: Comparison
) -> list[str]:
    cells = [f"{value:g}" for value in printed] or ["", ""]
    if row is None:
        return [name, *cells, "–", "", "", ""]
    figures = compared.measured[name]
    values = [_cell(figures[figure]) for figure in FIGURES]
    return [name, *cells, row.ours or _called(row.models[0]), str(len(row.models)), *values]


def _called(path: Path) -> str:
    return path.parent.name if path.name == "checkpoint" else path.name


def _cell(found: Measured) -> str:
    if len(found.seeds) < 2:
        return str(found.estimate)
    return f"{found.estimate}; seeds " + ", ".join(f"{value:.4f}" for value in found.seeds)


def _plain(found: Measured) -> dict[str, object]:
    estimate = found.estimate
    parts = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: _number(part) for name, part in parts.items()} | {
        "seeds": [_number(value) for value in found.seeds]
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
