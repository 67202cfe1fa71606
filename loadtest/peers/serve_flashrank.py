"""FlashRank with a model of ours, behind the wrapper."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from loadtest.peers.wrapper import options, serve

MAX_LENGTH = 256


def main() -> None:
    """Load the folder's ONNX file and serve it; FlashRank itself gives it all cores."""
    module = import_module("flashrank.Ranker")  # the package hides it behind its class
    given = options()
    (file,) = given.model.glob("*.onnx")
    module.model_file_map[given.model.name] = file.name
    ranker = module.Ranker(given.model.name, str(given.model.parent), max_length=MAX_LENGTH)

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        passages = [{"id": i, "text": text} for i, text in enumerate(documents)]
        ranked = ranker.rerank(module.RerankRequest(query, passages))
        by_index = {passage["id"]: float(passage["score"]) for passage in ranked}
        return [by_index[i] for i in range(len(documents))]

    serve(score, given.port)


if __name__ == "__main__":
    main()
