"""Packing: several sequences in a row of fixed length, each blind to the others."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from service.contract.encoding import TokenPair
from training.losses import IGNORED

Row = list[TokenPair]


def pack(pairs: Sequence[TokenPair], row_tokens: int) -> list[Row]:
    """Return the pairs in rows of at most `row_tokens`: longest first, each where it fits best.

    Args:
        pairs: Sequences, none longer than a row.
        row_tokens: Tokens of a row.
    """
    rows: list[Row] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for pair in sorted(pairs, key=len, reverse=True):
        place = bisect_left(room, (len(pair), 0))
        if place == len(room):
            rows.append([])
            left, row = row_tokens, len(rows) - 1
        else:
            left, row = room.pop(place)
        rows[row].append(pair)
        insort(room, (left - len(pair), row))
    return rows


def targets(row: Row) -> int:
    """Return how many tokens of a row are learnt: all but the prompts."""
    return sum(len(pair) - pair.first_segment for pair in row)


def batch(rows: Sequence[Row], row_tokens: int) -> dict[str, Tensor]:
    """Return the model's input and the labels of packed rows, each [B, L] int64.

    Position ids begin anew with every sequence, and with the padding: transformers masks what lies
    before such a beginning where it is given no attention mask.
    """
    ids = np.zeros((len(rows), row_tokens), dtype=np.int64)  # [B, L]
    labels = np.full_like(ids, IGNORED)
    positions = np.zeros_like(ids)
    for place, row in enumerate(rows):
        start = 0
        for pair in row:
            end = start + len(pair)
            ids[place, start:end] = pair.input_ids
            labels[place, start + pair.first_segment : end] = pair.input_ids[pair.first_segment :]
            positions[place, start:end] = np.arange(len(pair))
            start = end
        positions[place, start:] = np.arange(row_tokens - start)
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(positions),
    }
