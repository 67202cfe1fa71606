"""Pairs padded to few widths, for engines that are made for fixed shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.contract.encoding import TokenPair


@dataclass(frozen=True, slots=True)
class Part:
    """Pairs of one width, by their places among all."""

    places: NDArray[np.intp]
    width: int


def by_width(pairs: Sequence[TokenPair], widths: Sequence[int], most: int) -> Iterator[Part]:
    """Yield the pairs by the first width that holds them, at most so many a part.

    Args:
        pairs: Pairs of at most the last width.
        widths: Ascending.
        most: Pairs a part.
    """
    lengths = np.fromiter(map(len, pairs), dtype=np.intp, count=len(pairs))
    buckets = np.searchsorted(widths, lengths)
    for bucket in np.unique(buckets):
        places = np.flatnonzero(buckets == bucket)
        for start in range(0, len(places), most):
            yield Part(places[start : start + most], widths[bucket])


def padded(pairs: Sequence[TokenPair], width: int, pad: int) -> dict[str, NDArray[np.int64]]:
    """Return a model's inputs for pairs padded on the right, each int64 [B, W].

    Args:
        pairs: Pairs of at most that width.
        width: Tokens a row.
        pad: Id of the padding.
    """
    ids, mask, segments = np.zeros((3, len(pairs), width), dtype=np.int64)  # [B, W] each
    ids += pad
    for row, pair in enumerate(pairs):
        ids[row, : len(pair)], mask[row, : len(pair)] = pair.input_ids, 1
        segments[row, pair.first_segment : len(pair)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
