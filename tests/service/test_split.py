"""Who is the canary's: sticky, monotone, and as many as were asked for."""

from hashlib import blake2b

import pytest
from scipy.stats import kstest

from service.rollout.split import Split, StaleWeightError, Weight, place

KEYS = [f"user-{number}" for number in range(100_000)]


def taken(split: Split, weight: float, generation: int, version: str = "one") -> set[str]:
    split.apply(Weight(weight, generation))
    return {key for key in KEYS if split.takes(key, version)}


def test_shares_are_exact_to_half_a_point_and_nobody_is_reassigned_while_ramping() -> None:
    split, before = Split("salt"), set[str]()
    for generation, weight in enumerate((0.0, 0.01, 0.05, 0.10, 0.25, 0.5, 0.99, 1.0), start=1):
        found = taken(split, weight, generation)
        assert abs(len(found) / len(KEYS) - weight) <= 0.005
        assert before <= found  # who was in stays in
        before = found
    assert taken(split, 0.25, 100) == taken(Split("salt"), 0.25, 1)  # on the way back, elsewhere


def test_places_are_uniform_and_below_one() -> None:
    places = [place(key, salt="salt") for key in KEYS]
    assert kstest(places, "uniform").pvalue > 0.001
    assert min(places) >= 0
    assert max(places) < 1


def test_a_place_is_the_hash_that_the_documentation_tells() -> None:
    digest = blake2b(b"salt one\0user-1", digest_size=8).hexdigest()
    expected = int(digest, 16) / 2**64
    assert place("user-1", salt="salt one") == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("salt", "version"), [("other", "one"), ("salt", "two")])
def test_another_salt_or_canary_takes_other_keys(salt: str, version: str) -> None:
    first = taken(Split("salt"), 0.1, 1)
    second = taken(Split(salt), 0.1, 1, version)
    assert len(first & second) / len(first) == pytest.approx(0.1, abs=0.02)  # as chance has it


def test_an_older_decision_is_refused_and_the_one_in_effect_changes_nothing() -> None:
    split = Split("salt")
    split.apply(Weight(0.05, 7))
    split.apply(Weight(0.05, 7))
    for late in (Weight(0.5, 7), Weight(0.5, 6)):
        with pytest.raises(StaleWeightError, match="not after 7"):
            split.apply(late)
    assert split.weight == Weight(0.05, 7)


def test_a_reset_leaves_nothing_to_the_canary_until_a_newer_decision() -> None:
    split = Split("salt", Weight(1.0, 3))
    split.reset()
    assert not any(split.takes(key, "one") for key in KEYS[:100])
    with pytest.raises(StaleWeightError):
        split.apply(Weight(1.0, 3))
    split.apply(Weight(1.0, 4))
    assert all(split.takes(key, "one") for key in KEYS[:100])
