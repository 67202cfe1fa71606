"""The split of traffic between the stable model and a canary: sticky, and steered from outside."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

PLACES = 1 << 53
"""As many as a float in [0, 1) can tell apart evenly."""


class StaleWeightError(Exception):
    """A weight is older than the one in effect; the message says by how much."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What part of the routing keys goes to the canary.

    Attributes:
        canary: The part, in [0, 1].
        generation: Grows with each decision, so that a late one is known as such.
    """

    canary: float = 0.0
    generation: int = 0


class Split:
    """Sends a part of the routing keys to the canary, equal keys always to the same lane.

    A key has a place in [0, 1) and goes to the canary where the weight is above it, so keys only
    join while the weight grows and only leave while it falls. Places are drawn anew for each
    canary, lest the same users try them all, yet alike on every replica with the same salt.

    Attributes:
        weight: What is in effect.
    """

    def __init__(self, salt: str, weight: Weight | None = None) -> None:
        """Begin with a weight, nothing for the canary by default.

        Args:
            salt: Sets this service's places apart from everybody else's.
            weight: The first one.
        """
        self._salt = salt
        self.weight = weight or Weight()

    def takes(self, key: str, version: str) -> bool:
        """Return whether a routing key goes to the canary of a version."""
        canary = self.weight.canary
        return canary > 0 and place(key, salt=f"{self._salt} {version}") < canary

    def apply(self, weight: Weight) -> None:
        """Put a newer weight into effect; the one in effect already changes nothing.

        Raises:
            StaleWeightError: Another one of the same or a later generation is in effect.
        """
        if weight == self.weight:
            return
        if weight.generation <= self.weight.generation:
            raise StaleWeightError(
                f"generation {weight.generation} is not after {self.weight.generation}, which is "
                "in effect"
            )
        self.weight = weight

    def reset(self) -> None:
        """Send nothing to the canary: it is another one, or gone.

        The generation stays, so that what steers the weight goes on counting from its own.
        """
        self.weight = Weight(0.0, self.weight.generation)


def place(key: str, *, salt: str) -> float:
    """Return a key's place in [0, 1), uniform over keys and the same on every machine."""
    digest = blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / PLACES
