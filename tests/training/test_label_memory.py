"""Labelling's memory does not grow with the rows; LABEL_ROWS=1000000 for the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from service.contract.examples import write_examples
from service.contract.types import Candidate, RankingExample
from tests.tiny import tiny_checkpoint
from tests.training.kill import ENVIRONMENT
from training.shards import SCHEMA

ROWS = int(os.environ.get("LABEL_ROWS", "30000"))
DOCUMENTS = 10  # a query; a row is a query with one of them

PEAKS = """
import json, resource, sys
from pathlib import Path
from training.label import label
from training.recipe import LabelRecipe

folder = Path(sys.argv[1])
peaks = []
for path in ("small.jsonl", "large.jsonl", "large.parquet"):
    recipe = LabelRecipe.model_validate({
        "name": path,
        "teacher": str(folder / "teacher"),
        "teacher_kind": "cross-encoder",
        "sources": [{"kind": "examples", "path": path}],
    })
    label(recipe, data=folder, out=folder / "runs")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # MiB
print(json.dumps(peaks))
"""


def examples(rows: int) -> Iterator[RankingExample]:
    for number in range(rows // DOCUMENTS):
        documents = (
            Candidate(f"{number}-{place}", f"kettle {place}", f"water {number}")
            for place in range(DOCUMENTS)
        )
        yield RankingExample(str(number), f"boil {number}", tuple(documents))


def write_parquet(path: Path, rows: int) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        stream = examples(rows)
        while chunk := [*islice(stream, 1000)]:
            fields = [asdict(example) for example in chunk]
            writer.write_table(pa.Table.from_pylist(fields, schema=SCHEMA))


def test_memory_is_flat_in_the_rows_that_are_labelled(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "teacher", layers=1)
    write_examples(tmp_path / "small.jsonl", examples(ROWS // 10))
    write_examples(tmp_path / "large.jsonl", examples(ROWS))
    write_parquet(tmp_path / "large.parquet", ROWS)
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    small, *large = json.loads(done.stdout)
    shown = ", ".join(f"{peak:.0f}" for peak in large)
    print(f"MiB: {small:.0f} after {ROWS // 10:,} rows, {shown} after {ROWS:,}, twice")
    assert max(large) - small < 64  # MiB
    for name in ("large.jsonl", "large.parquet"):
        summary = json.loads((tmp_path / "runs" / name / "labels.json").read_text())
        assert summary["pairs"] == ROWS
