"""What a soak saw, as it is kept on the disk."""

from __future__ import annotations

from loadtest.bench.results import Part
from loadtest.soak.trend import Trend


class Slope(Part):
    """A slope and the ends of its 95 % interval."""

    slope: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Trend) -> Slope:
        """Return a trend to keep."""
        return cls(slope=found.slope, low=found.low, high=found.high)


class Watch(Part):
    """A service's memory after its warm-up.

    Attributes:
        leak_bytes: What it kept of each request on purpose; 0 for the service itself.
        seconds: How long it was watched.
        requests: How many ended meanwhile.
        block_s: Middles of the blocks of time, in seconds since the warm-up.
        floor_mb: The lowest resident memory in each block.
        mb_per_hour: The trend of those.
        bytes_per_request: The same by requests.
        endings: How many requests ended with which status, warm-up included; 0: abandoned.
        errors: What was logged as an error, and how often.
    """

    leak_bytes: int
    seconds: float
    requests: int
    block_s: tuple[float, ...]
    floor_mb: tuple[float, ...]
    mb_per_hour: Slope
    bytes_per_request: Slope
    endings: dict[str, int]
    errors: dict[str, int]


class SoakResult(Part):
    """The service and the control."""

    steady: Watch
    control: Watch
