"""How busy the machine's cores are, whoever uses them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

STAT = Path("/proc/stat")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE = (3, 4, 8, 9)
"""Fields of a `cpu` line that are no work: idle, iowait, and guest, which user time holds too."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A moment's reading of the clocks.

    Attributes:
        at_s: When, in `time.monotonic()` seconds.
        cpu_s: CPU time of all cores, taken by this machine's programs or by its host; None where
            the system does not tell.
        own_cpu_s: CPU time of this process and of those it started that ended.
        cores: How many there are.
    """

    at_s: float
    cpu_s: float | None
    own_cpu_s: float
    cores: int

    @classmethod
    def now(cls) -> Busy:
        """Return the clocks as they are."""
        own_cpu_s, cores = sum(os.times()[:4]), os.cpu_count() or 1
        try:
            fields = STAT.read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        except OSError:
            return cls(monotonic(), None, own_cpu_s, cores)
        ticks = sum(int(field) for place, field in enumerate(fields) if place not in IDLE)
        return cls(monotonic(), ticks / TICKS_PER_S, own_cpu_s, cores)

    def others_share_since(self, before: Busy, known_cpu_s: float) -> float | None:
        """Return the share of all cores that others took since then.

        Args:
            before: An earlier reading.
            known_cpu_s: What running processes of ours took meanwhile.
        """
        if self.cpu_s is None or before.cpu_s is None:
            return None
        own_s = self.own_cpu_s - before.own_cpu_s + known_cpu_s
        cores_s = self.cores * (self.at_s - before.at_s)
        return min(1.0, max(0.0, (self.cpu_s - before.cpu_s - own_s) / cores_s))
