"""A small server that speaks vLLM's `/classify`, with a checkpoint in torch behind it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from tests.json_server import Reply, json_server


class Classifier:
    """Answers `/classify` as vLLM does, with a checkpoint in torch; one row a call, no padding."""

    def __init__(self, checkpoint: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.busy = 1  # requests that are sent away first
        self._model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
        self._lock = threading.Lock()

    @contextmanager
    def run(self) -> Iterator[str]:
        """Serve, and yield the URL."""
        with json_server(lambda path, _headers, body: self.answer(path, body)) as url:
            yield url

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        with self._lock:
            if path != "/classify" or body["model"] != "teacher":
                return 404, {}, {"error": {"message": f"no {path} of {body['model']}"}}
            if self.busy > 0:
                self.busy -= 1
                return 503, {}, {"error": {"message": "starting"}}
            self.asked.append(body)
            data = [self._row(place, ids, body) for place, ids in enumerate(body["input"])]
        tokens = sum(map(len, body["input"]))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        named = {"id": "classify-1", "object": "list", "created": 1, "model": "teacher"}
        return 200, {}, {**named, "data": data, "usage": usage}

    def _row(self, place: int, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            logits = self._model(input_ids=torch.tensor([ids])).logits[0].float().tolist()
        activated = body.get("use_activation", True)
        probs = [1 / (1 + math.exp(-x)) for x in logits] if activated else logits
        return {"index": place, "label": "LABEL_0", "probs": probs, "num_classes": len(probs)}
