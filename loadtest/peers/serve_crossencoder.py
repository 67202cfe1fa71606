"""sentence-transformers' CrossEncoder in torch, fp32, behind the wrapper."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.peers.wrapper import options, serve

BATCH = 8


def main() -> None:
    """Load the checkpoint and serve it."""
    import torch
    from sentence_transformers import CrossEncoder

    given = options()
    torch.set_num_threads(given.threads)
    model = CrossEncoder(str(given.model), device="cpu")

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        pairs = [(query, document) for document in documents]
        found: Sequence[float] = model.predict(
            pairs, batch_size=BATCH, show_progress_bar=False
        ).tolist()
        return found

    serve(score, given.port)


if __name__ == "__main__":
    main()
