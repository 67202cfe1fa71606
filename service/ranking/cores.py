"""The cores of this process, which all its models share."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Line(Protocol):
    """A model's requests, in line for the cores."""

    @property
    def turn(self) -> tuple[bool, float] | None:
        """The turn of its first request; None where nobody waits."""
        ...

    async def step(self) -> None:
        """Launch what is first, or drop it; never raises."""
        ...


class Cores:
    """Gives each launch a core, whichever model it is of, in the tickets' turn.

    Were each model to run as many launches as there are cores, two models would halve each other's
    speed whenever both are asked, and a low priority of one could not give way to the other.
    """

    def __init__(self, count: int) -> None:
        """Start idle.

        Args:
            count: Launches that run at a time.
        """
        self.count = count
        self._lines: list[Line] = []
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def join(self, line: Line) -> None:
        """Begin to launch what waits in a line."""
        self._lines.append(line)
        running = [loop for loop in self._loops if not loop.done()]
        missing = range(len(running), self.count)
        self._loops = running + [
            asyncio.create_task(self._run(), name=f"core-{number}") for number in missing
        ]

    def leave(self, line: Line) -> None:
        """Launch no more of a line; a launch that goes on ends by itself."""
        if line in self._lines:
            self._lines.remove(line)
        self.wake()

    def wake(self) -> None:
        """Look at the lines again: somebody came."""
        self._wake.set()

    async def _run(self) -> None:
        while self._lines:
            if line := self._first():
                await line.step()
            else:
                self._wake.clear()
                await self._wake.wait()

    def _first(self) -> Line | None:
        turns = [(turn, line) for line in self._lines if (turn := line.turn) is not None]
        return min(turns, key=lambda found: found[0])[1] if turns else None
