"""Hashes that are the same everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from pydantic import BaseModel


def stable_hash(text: str) -> int:
    """Return a 64-bit hash of a text that is the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def fingerprint(recipe: BaseModel, inputs: Iterable[bytes]) -> str:
    """Return a hash of a recipe and of all that it is run on."""
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for part in inputs:
        digest.update(part)
    return digest.hexdigest()
