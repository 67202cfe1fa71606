"""A hash that is the same everywhere."""

from __future__ import annotations

import hashlib


def stable_hash(text: str) -> int:
    """Return a 64-bit hash of a text that is the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
