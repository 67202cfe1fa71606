"""Folders that are replaced whole, whenever the writer dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes target when the block ends without an error.

    A reader finds the old folder or the new one, and after a kill at any moment one of them is
    at target or, between two renames, at `.{name}.old`, from where `restore_folder` brings it back.
    An error, of the block or of the disk, leaves target as it was. One writer a target at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(target)
    scratch = _scratch(target)
    scratch.mkdir()
    try:
        yield scratch
        for path in scratch.rglob("*"):
            if path.is_file():
                _sync(path)
        _replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def restore_folder(target: Path) -> None:
    """Undo the first half of a killed replacement, and remove what else is left of it."""
    shutil.rmtree(_scratch(target), ignore_errors=True)
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _replace(scratch: Path, target: Path) -> None:
    aside = _aside(target)
    if target.exists():
        target.rename(aside)
    try:
        scratch.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _scratch(target: Path) -> Path:
    return target.parent / f".{target.name}.new"


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
