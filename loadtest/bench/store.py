"""Sections that a stopped run had measured, so that the next one goes on after them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Store:
    """One run's sections on the disk; another bundle, plan or data is another run."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        """Take the folder of all runs and what makes this one different from others."""
        canonical = json.dumps(run, sort_keys=True).encode()
        self._folder = folder / hashlib.sha256(canonical).hexdigest()[:16]

    def find(self, section: str) -> str | None:
        """Return what was kept of a section; None where it was not finished."""
        path = self._path(section)
        return path.read_text(encoding="utf-8") if path.exists() else None

    def keep(self, section: str, text: str) -> None:
        """Keep a finished section: whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = self._path(section).with_suffix(".new")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(self._path(section))

    def clear(self) -> None:
        """Forget the run."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, section: str) -> Path:
        return self._folder / f"{section}.json"
