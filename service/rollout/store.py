"""The files of a rollout: its state, which is the truth, and the weights, which follow from it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from service.rollout.desired import WEIGHTS, write_atomically
from service.rollout.progress import Rollout

STATE = "state.json"


class StoreError(Exception):
    """The state cannot be used; the message says why."""


class Store:
    """A folder with a rollout's state.

    Each change is one replacement of the state's file, then one of the weights'. A kill between
    leaves older weights than the state's, which the next `restore` mends; never newer ones.

    Attributes:
        weights: The file that replicas read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / STATE
        self.weights = folder / WEIGHTS

    @classmethod
    def beside(cls, weights: Path) -> Store:
        """Return the store whose weights a replica reads.

        Raises:
            StoreError: The state is elsewhere: the weights are a copy, as a ConfigMap's are.
        """
        store, folder = cls(weights.parent), weights.parent
        copied = weights.exists() or (folder.exists() and not os.access(folder, os.W_OK))
        if weights.name != WEIGHTS or (copied and not store._state.exists()):
            raise StoreError(
                f"{weights} has no {STATE} beside it that it follows from: ask where "
                "`python -m service rollout run` keeps its folder"
            )
        return store

    def load(self) -> Rollout:
        """Return the state; that of nothing where there is none yet.

        Raises:
            StoreError: The file is none of ours.
        """
        try:
            text = self._state.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Rollout()
        try:
            return Rollout.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"{self._state}: {error.errors()[0]['msg']}") from error

    def change(self, change: Callable[[Rollout], Rollout]) -> Rollout:
        """Change the state, alone of all processes, and return it."""
        with self._locked("edit.lock", "", wait=True):
            old = self.load()
            new = change(old)
            if new != old:
                write_atomically(self._state, new.model_dump_json())
            self._tell(new)
        return new

    def restore(self) -> Rollout:
        """Have the weights follow from the state again, and return it."""
        return self.change(lambda rollout: rollout)

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Be the one that decides, until the end of the block or of the process.

        Raises:
            StoreError: Another process is.
        """
        taken = f"{self._folder}: another process decides on this rollout"
        with self._locked("run.lock", taken, wait=False):
            yield

    def _tell(self, rollout: Rollout) -> None:
        if rollout.generation == 0:
            return
        text = rollout.desired.model_dump_json()
        if not self.weights.is_file() or self.weights.read_text(encoding="utf-8") != text:
            write_atomically(self.weights, text)

    @contextmanager
    def _locked(self, name: str, taken: str, *, wait: bool) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise StoreError(taken) from None
            yield
        finally:
            os.close(file)  # and with it the lock, which a kill lets go of too
