"""What continued pre-training reads next: clicks in blocks, shuffled, packed and seekable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import TokenPair
from training.clicks import Click, Shard
from training.packing import Row, pack
from training.recipe import RecipeError


@dataclass(slots=True)
class Counts:
    """What was read, once an epoch.

    Attributes:
        rows: Rows read.
        empty: Rows without a query or without title and summary; left out.
        duplicates: Rows equal to an earlier one of their block; left out.
        overlong: Rows that were cut to `max_length` or `max_query_length`.
        tokens: Tokens trained on, prompts included.
        packed_tokens: The same with the rows' padding.
    """

    rows: int = 0
    empty: int = 0
    duplicates: int = 0
    overlong: int = 0
    tokens: int = 0
    packed_tokens: int = 0


class ClickRows:
    """Packed rows without end, a function of (seed, position) alone.

    The source is read in blocks: shards in an order drawn anew each epoch, their rows in their own.
    A block is packed and its rows shuffled, so only one is ever in memory, and a position is where
    the block begins and how many of its rows are used.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        encoder: DecoderPairEncoder,
        *,
        seed: int,
        block_rows: int,
        row_tokens: int,
    ) -> None:
        self._shards = shards
        self._encoder = encoder
        self._seed = seed
        self._block_rows = block_rows
        self._row_tokens = row_tokens
        self.seek({})

    @property
    def counts(self) -> Counts:
        """Return what was read so far, the current block included."""
        return self._counts

    def take(self, number: int) -> list[Row]:
        """Return the next rows.

        Raises:
            RecipeError: A row of the source is malformed, or an epoch has no usable one.
        """
        rows: list[Row] = []
        while len(rows) < number:
            if self._used == len(self._rows):
                self._next_block()
            part = self._rows[self._used : self._used + number - len(rows)]
            rows.extend(part)
            self._used += len(part)
        return rows

    def position(self) -> dict[str, Any]:
        """Return where the next row is, as JSON."""
        epoch, shard, row = self._begin
        before = asdict(self._before)
        return {"epoch": epoch, "shard": shard, "row": row, "used": self._used, "counts": before}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a position; {} is the beginning."""
        self._begin = self._end = (
            position.get("epoch", 0),
            position.get("shard", 0),
            position.get("row", 0),
        )
        self._counts = Counts(**position.get("counts", {}))
        self._before = replace(self._counts)
        self._rows: list[Row] = []
        self._used = 0
        self._fruitful = bool(position)  # a position is saved after a step, hence after a row
        self._stream = self._walk(*self._end)
        if position:
            self._next_block()
            self._used = position["used"]

    def _next_block(self) -> None:
        """Read blocks until one has a usable row."""
        self._rows, self._used = [], 0
        while not self._rows:
            self._begin, self._before = self._end, replace(self._counts)
            block = list(islice(self._stream, self._block_rows))
            if not block:
                self._next_epoch()
                continue
            self._end = (self._begin[0], *block[-1][:2])
            pairs = encode_clicks((click for _, _, click in block), self._encoder, self._counts)
            self._rows = pack(pairs, self._row_tokens)
            self._counts.packed_tokens += len(self._rows) * self._row_tokens
            np.random.default_rng([self._seed, *self._begin]).shuffle(self._rows)
        self._fruitful = True

    def _next_epoch(self) -> None:
        if not self._fruitful:
            raise RecipeError(f"no usable row among {self._counts.rows}: {asdict(self._counts)}")
        self._fruitful = False
        self._end = (self._begin[0] + 1, 0, 0)
        self._stream = self._walk(*self._end)

    def _walk(self, epoch: int, shard: int, row: int) -> Iterator[tuple[int, int, Click]]:
        """Yield an epoch's clicks, each with the shard's place and the row after it."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._shards))
        for place in range(shard, len(order)):
            start = row if place == shard else 0
            rows = self._shards[order[place]].rows(start)
            for number, click in enumerate(rows, start=start + 1):
                yield place, number, click


def encode_clicks(
    clicks: Iterable[Click], encoder: DecoderPairEncoder, counts: Counts
) -> list[TokenPair]:
    """Return the sequences of a block's usable clicks; adds to the counts."""
    kept: dict[bytes, Click] = {}
    for click in clicks:
        counts.rows += 1
        document = click.document
        if not click.query.strip() or not (document.title.strip() or document.summary.strip()):
            counts.empty += 1
            continue
        text = "\0".join((click.query, document.title, document.summary))
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in kept:
            counts.duplicates += 1
            continue
        kept[key] = click
    queries = encoder.encode_texts([click.query for click in kept.values()])
    documents = encoder.encode_whole([click.document for click in kept.values()])
    counts.overlong += sum(map(encoder.is_cut, queries, documents))
    pairs = [
        encoder.splice(query[: encoder.max_query_length], document)
        for query, document in zip(queries, documents, strict=True)
    ]
    counts.tokens += sum(map(len, pairs))
    return pairs
