"""First-stage retrieval over a corpus that fits in memory: BM25, or a bi-encoder's cosines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.retrieval_recipe import FirstStage
from training.teacher import BiEncoder

Places = NDArray[np.int64]

QUERIES_A_CALL = 256
BATCH_TOKENS = 8192


def rankings(stage: FirstStage, texts: Sequence[str], queries: Sequence[str]) -> Iterator[Places]:
    """Return the places of each query's best documents, best first, `stage.depth` at most.

    Args:
        stage: The retriever.
        texts: Of the documents, at least one.
        queries: In the order of what is returned.
    """
    depth = min(stage.depth, len(texts))
    if stage.kind == "bm25":
        return _bm25(texts, queries, depth)
    return _bi_encoder(stage, texts, queries, depth)


def _bm25(texts: Sequence[str], queries: Sequence[str], depth: int) -> Iterator[Places]:
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)
    for start in range(0, len(queries), QUERIES_A_CALL):
        chunk = list(queries[start : start + QUERIES_A_CALL])
        tokens = bm25s.tokenize(chunk, show_progress=False)
        found, _ = index.retrieve(tokens, k=depth, show_progress=False)
        yield from found.astype(np.int64)


def _bi_encoder(
    stage: FirstStage, texts: Sequence[str], queries: Sequence[str], depth: int
) -> Iterator[Places]:
    encoder = BiEncoder(stage.base, max_length=stage.max_length, batch_tokens=BATCH_TOKENS)
    documents = encoder.embed(list(texts))  # [D, H]
    for start in range(0, len(queries), QUERIES_A_CALL):
        chunk = encoder.embed(list(queries[start : start + QUERIES_A_CALL]))  # [Q, H]
        found = (chunk @ documents.T).topk(depth, dim=1).indices  # [Q, depth]
        yield from found.cpu().numpy()
