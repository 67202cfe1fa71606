"""What a canary and its control did in the same time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values counted in buckets.

    Attributes:
        bounds: Upper bounds of all buckets but the last, which is open; rising, [B - 1].
        counts: Values in each, [B]; empty where there is no value.
        total: Sum of the values, 0 where nobody kept it.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    total: float = 0.0

    @property
    def n(self) -> int:
        """How many values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean; NaN for none."""
        return self.total / self.n if self.n else math.nan

    def __sub__(self, then: Histogram) -> Histogram:
        if not (self.counts and then.counts):
            return self
        counts = tuple(a - b for a, b in zip(self.counts, then.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - then.total)

    def __add__(self, other: Histogram) -> Histogram:
        if not (self.counts and other.counts):
            return self if self.counts else other
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total)

    def follows(self, then: Histogram) -> bool:
        """Return whether no count has fallen since, in the same buckets."""
        if not then.counts:
            return True
        same = self.bounds == then.bounds
        return same and all(a >= b for a, b in zip(self.counts, then.counts, strict=True))


@dataclass(frozen=True, slots=True)
class Arm:
    """What one lane's requests came to.

    Attributes:
        requests: Requests to rank, but for those that their clients spoilt or left.
        failures: Those that got no ranking, or the stable model's for want of the canary.
        degraded: Those ranked in part.
        durations: Seconds of those that were ranked.
    """

    requests: int = 0
    failures: int = 0
    degraded: int = 0
    durations: Histogram = field(default_factory=Histogram)

    def __sub__(self, then: Arm) -> Arm:
        return Arm(
            self.requests - then.requests,
            self.failures - then.failures,
            self.degraded - then.degraded,
            self.durations - then.durations,
        )

    def __add__(self, other: Arm) -> Arm:
        return Arm(
            self.requests + other.requests,
            self.failures + other.failures,
            self.degraded + other.degraded,
            self.durations + other.durations,
        )

    def follows(self, then: Arm) -> bool:
        """Return whether no count has fallen since."""
        counts = (self.requests, self.failures, self.degraded)
        before = (then.requests, then.failures, then.degraded)
        rose = all(a >= b for a, b in zip(counts, before, strict=True))
        return rose and self.durations.follows(then.durations)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far rankings of sampled requests agree with other rankings of them.

    Attributes:
        compared: Requests.
        garbage: Those where this side's scores rank nothing: not finite, or all the same.
        concordance: (1 + τ-b) / 2 of each.
        overlap_10: Overlap at 10 of each.
        scores: Raw scores of this side.
    """

    compared: int = 0
    garbage: int = 0
    concordance: Histogram = field(default_factory=Histogram)
    overlap_10: Histogram = field(default_factory=Histogram)
    scores: Histogram = field(default_factory=Histogram)

    def __sub__(self, then: Agreement) -> Agreement:
        return Agreement(
            self.compared - then.compared,
            self.garbage - then.garbage,
            self.concordance - then.concordance,
            self.overlap_10 - then.overlap_10,
            self.scores - then.scores,
        )

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.compared + other.compared,
            self.garbage + other.garbage,
            self.concordance + other.concordance,
            self.overlap_10 + other.overlap_10,
            self.scores + other.scores,
        )

    def follows(self, then: Agreement) -> bool:
        """Return whether no count has fallen since."""
        return (
            self.compared >= then.compared
            and self.garbage >= then.garbage
            and self.concordance.follows(then.concordance)
            and self.overlap_10.follows(then.overlap_10)
            and self.scores.follows(then.scores)
        )


@dataclass(frozen=True, slots=True)
class Side:
    """All about one lane.

    Attributes:
        arm: Its requests.
        paired: Its scores beside the other lane's, of the same requests.
        taught: Its rankings beside a third model's, a teacher's.
    """

    arm: Arm = field(default_factory=Arm)
    paired: Agreement = field(default_factory=Agreement)
    taught: Agreement = field(default_factory=Agreement)

    def __sub__(self, then: Side) -> Side:
        return Side(self.arm - then.arm, self.paired - then.paired, self.taught - then.taught)

    def __add__(self, other: Side) -> Side:
        return Side(self.arm + other.arm, self.paired + other.paired, self.taught + other.taught)

    def follows(self, then: Side) -> bool:
        """Return whether no count has fallen since."""
        return (
            self.arm.follows(then.arm)
            and self.paired.follows(then.paired)
            and self.taught.follows(then.taught)
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A canary and its control.

    Attributes:
        canary: The candidate's lane.
        control: The stable lane.
    """

    canary: Side = field(default_factory=Side)
    control: Side = field(default_factory=Side)

    def __sub__(self, then: Observation) -> Observation:
        return Observation(self.canary - then.canary, self.control - then.control)

    @property
    def evidence(self) -> int:
        """How much there is to judge by: the canary's requests and those that were compared."""
        canary = self.canary
        return canary.arm.requests + canary.paired.compared + canary.taught.compared

    def follows(self, then: Observation) -> bool:
        """Return whether no count has fallen since; one has where a process began anew."""
        return self.canary.follows(then.canary) and self.control.follows(then.control)
