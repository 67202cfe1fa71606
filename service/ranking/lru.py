"""A bounded memory."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

KEY_BYTES = 16

Value = TypeVar("Value", bytes, float)


class Lru(Generic[Value]):
    """A mapping of hashes, bounded in bytes; the least recently used entries make room."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty, with room for max_bytes of keys, values and tables."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Value] = OrderedDict()
        self._payload_bytes = 0

    @property
    def fill(self) -> tuple[int, int]:
        """How many entries, and the bytes of keys, values and tables."""
        return len(self._entries), self._payload_bytes + sys.getsizeof(self._entries)

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Value]:
        """Return what is stored of keys, as used just now."""
        found = {}
        for key in keys:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
                found[key] = value
        return found

    def get(self, key: bytes) -> Value | None:
        """Return what is stored of a key, without using it."""
        return self._entries.get(key)

    def clear(self) -> int:
        """Forget everything; return how many entries that was."""
        entries = len(self._entries)
        self._entries = OrderedDict()
        self._payload_bytes = 0
        return entries

    def store(self, entries: Mapping[bytes, Value]) -> None:
        """Store entries, dropping what was not used for longest until all fits."""
        for key, value in entries.items():
            old = self._entries.pop(key, None)
            if old is not None:
                self._payload_bytes -= _entry_bytes(old)
            self._entries[key] = value
            self._payload_bytes += _entry_bytes(value)
            while self._entries and self.fill[1] > self.max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self._payload_bytes -= _entry_bytes(dropped)


def _entry_bytes(value: bytes | float) -> int:
    """Return what a value and its key of 16 bytes take beside the table."""
    return _allocated(sys.getsizeof(value)) + _allocated(sys.getsizeof(b"") + KEY_BYTES)


def _allocated(size_bytes: int) -> int:
    return (size_bytes + 23) // 16 * 16  # allocators add 8 bytes and round up to 16
