"""The stream of packed rows: all of it, once an epoch, and the same from any saved position."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.types import Candidate
from tests.training.decoders import trained_tokenizer
from training.click_feed import ClickRows
from training.clicks import Click, Shard
from training.packing import Row, pack
from training.recipe import RecipeError


@dataclass(frozen=True)
class Listed:
    """A shard over a list."""

    clicks: list[Click]

    @property
    def identity(self) -> str:
        return repr(self.clicks)

    def rows(self, start: int) -> Iterator[Click]:
        yield from self.clicks[start:]


def click(query: str, title: str = "kettle", summary: str = "") -> Click:
    return Click(query, Candidate(None, title, summary))


@pytest.fixture(scope="module")
def encoder() -> DecoderPairEncoder:
    return DecoderPairEncoder(
        trained_tokenizer().backend_tokenizer, bos=1, eos=2, max_length=32, max_query_length=12
    )


def stream(
    encoder: DecoderPairEncoder, shards: list[Shard], *, seed: int = 0, block_rows: int = 8
) -> ClickRows:
    return ClickRows(shards, encoder, seed=seed, block_rows=block_rows, row_tokens=64)


def shards(sizes: tuple[int, ...] = (7, 20, 0, 5)) -> list[Shard]:
    return [
        Listed([click(f"{place} {n}", "dog " * (n % 5 + 1)) for n in range(size)])
        for place, size in enumerate(sizes)
    ]


def contents(rows: list[Row]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(pair.input_ids.tolist()) for row in rows for pair in row)


def flat(rows: list[Row]) -> list[list[list[int]]]:
    return [[pair.input_ids.tolist() for pair in row] for row in rows]


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(
    encoder: DecoderPairEncoder,
) -> None:
    rows = stream(encoder, shards())
    epochs: list[list[Row]] = []
    for epoch in (0, 1):
        found: list[Row] = []
        while rows.position()["epoch"] == epoch:
            found += rows.take(1)
        if epochs:  # the row that told of the epoch's end is already the next epoch's
            found.insert(0, epochs[-1].pop())
        epochs.append(found)
    epochs[1].pop()
    assert contents(epochs[0]) == contents(epochs[1])
    assert len(contents(epochs[0])) == 32
    assert flat(epochs[0]) != flat(epochs[1])


def test_a_stream_goes_on_from_any_position_as_if_never_stopped(
    encoder: DecoderPairEncoder,
) -> None:
    rows = stream(encoder, shards())
    marks, taken = [], []
    for _ in range(40):
        taken.append(flat(rows.take(1)))
        marks.append(json.loads(json.dumps(rows.position())))
    for place in (0, 3, 11, 38):
        resumed = stream(encoder, shards())
        resumed.seek(marks[place])
        assert [flat(resumed.take(1)) for _ in range(39 - place)] == taken[place + 1 :]
        assert resumed.counts == rows.counts
        assert resumed.position() == marks[-1]


def test_another_seed_gives_another_order(encoder: DecoderPairEncoder) -> None:
    first, second = (stream(encoder, shards(), seed=seed).take(8) for seed in (0, 1))
    assert flat(first) != flat(second)


def test_rows_that_teach_nothing_are_counted_and_left_out(encoder: DecoderPairEncoder) -> None:
    clicks = [
        click("cat"),
        click("cat"),  # a duplicate
        click(" "),
        click("dog", "", " "),
        click("dog", "the river " * 40),  # overlong
        click("cat " * 40),  # overlong
        click("cat", "", "kettle"),
    ]
    rows = stream(encoder, [Listed(clicks)]).take(1)
    rows_read = stream(encoder, [Listed(clicks)])
    rows_read.take(1)
    counts = rows_read.counts
    assert (counts.rows, counts.empty, counts.duplicates, counts.overlong) == (7, 2, 1, 2)
    assert counts.tokens <= counts.packed_tokens
    assert all(len(pair) <= 32 for row in rows for pair in row)


def test_a_source_without_a_usable_row_ends_instead_of_turning_for_ever(
    encoder: DecoderPairEncoder,
) -> None:
    with pytest.raises(RecipeError, match="no usable row among 3"):
        stream(encoder, [Listed([click("")] * 3)]).take(1)
    with pytest.raises(RecipeError, match="no usable row among 0"):
        stream(encoder, [Listed([])]).take(1)


def test_packing_keeps_every_sequence_and_wastes_little(encoder: DecoderPairEncoder) -> None:
    pairs = [encoder.encode("cat", [Candidate(None, "dog " * (n % 9 + 1))])[0] for n in range(200)]
    rows = pack(pairs, 64)
    assert contents(rows) == contents([pairs])
    assert all(sum(map(len, row)) <= 64 for row in rows)
    assert sum(map(len, pairs)) / (64 * len(rows)) > 0.95


PEAK = """
import json, resource, sys
from pathlib import Path
from tests.training.decoders import trained_tokenizer
from service.contract.decoder_encoding import DecoderPairEncoder
from training.click_feed import ClickRows
from training.clicks import open_clicks
from training.teacher_recipes import ClickFiles

encoder = DecoderPairEncoder(
    trained_tokenizer().backend_tokenizer, bos=1, eos=2, max_length=32, max_query_length=12
)
shards = open_clicks(ClickFiles(paths=(sys.argv[1],)), Path(sys.argv[2]))
rows = ClickRows(shards, encoder, seed=0, block_rows=2048, row_tokens=256)
peaks = []
for share in (0.1, 1.0):
    while rows.counts.rows < share * int(sys.argv[3]):
        rows.take(64)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB
print(json.dumps([*peaks, rows.counts.rows]))
"""


@pytest.mark.parametrize("name", ["clicks.jsonl", "clicks.parquet"])
def test_memory_is_flat_in_the_rows_read(name: str, tmp_path: Path) -> None:
    rows = int(os.environ.get("CLICK_ROWS", "30000"))
    write_many(tmp_path / name, rows)
    found = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(tmp_path), str(rows)],
        check=True,
        capture_output=True,
        text=True,
    )
    early, late, read = json.loads(found.stdout)
    assert read >= rows
    assert late - early < 64 * 1024  # KiB; the 1,000,000 rows of a real run are 70 MiB of text


def write_many(path: Path, rows: int) -> None:
    """Write rows without holding them."""

    def fields(number: int) -> dict[str, str]:
        return {"query": f"cat {number}", "title": f"dog {number}", "summary": "kettle"}

    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(fields(number)) + "\n" for number in range(rows))
        return
    schema = pa.schema([(name, pa.string()) for name in fields(0)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 10_000):
            chunk = [fields(number) for number in range(start, min(start + 10_000, rows))]
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
