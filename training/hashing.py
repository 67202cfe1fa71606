"""Hashes that are the same everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel


def stable_hash(text: str) -> int:
    """Return a 64-bit hash of a text that is the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def sha256_of(path: Path) -> str:
    """Return a file's sha256, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_digest(path: str) -> bytes:
    """Return a digest of a model's folder, b"" where the name is none, as a hub's.

    A model that was trained anew in the same place has another digest.
    """
    files = sorted(file for file in Path(path).glob("*") if file.is_file())
    return "".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode()


def fingerprint(recipe: BaseModel, base: str, inputs: Iterable[bytes]) -> str:
    """Return a hash of a recipe, of the model it begins with and of all that it is run on."""
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    digest.update(model_digest(base))
    for part in inputs:
        digest.update(part)
    return digest.hexdigest()
