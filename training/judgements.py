"""Side-by-side judgements and ΔGSB: how often one system's answer is better than another's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract.errors import first_error
from training.figures import JudgedScores
from training.lines import read_lines
from training.recipe import RecipeError
from training.significance import sign_test


class Judgement(BaseModel):
    """One line of a judgements file: whose answer to a query is better."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    query_id: str
    left: str = Field(min_length=1, description="name of the system shown on the left")
    right: str = Field(min_length=1)
    verdict: Literal["left", "right", "same"]


@dataclass(frozen=True, slots=True)
class Gsb:
    """How often a system was better (good), as good (same) and worse (bad) than another."""

    good: int
    same: int
    bad: int

    @property
    def delta(self) -> float:
        """(G - B) / (G + S + B), in [-1, 1]; NaN without judgements.

        Source:
            DisRanker section 4.2.
        """
        total = self.good + self.same + self.bad
        return (self.good - self.bad) / total if total else float("nan")

    @property
    def p(self) -> float:
        """Exact two-sided sign test of good against bad; same ones count for neither."""
        return sign_test(self.good, self.bad)

    def __str__(self) -> str:
        return f"{self.delta:+.1%} ({self.good} : {self.same} : {self.bad})"


def read_judgements(path: Path) -> list[Judgement]:
    """Return the judgements of a JSON Lines file; fields beyond the four are left alone.

    Raises:
        RecipeError: A line is no judgement, or one of a system with itself; it is named.
    """
    found = []
    for where, line in read_lines(path):
        try:
            judgement = Judgement.model_validate(json.loads(line))
        except ValidationError as error:
            raise RecipeError(f"{where}: not a judgement: {first_error(error)}") from None
        except ValueError as error:
            raise RecipeError(f"{where}: not a judgement: {error}") from None
        if judgement.left == judgement.right:
            raise RecipeError(f"{where}: {judgement.left!r} is compared with itself")
        found.append(judgement)
    return found


def count_judgements(judgements: Iterable[Judgement]) -> dict[tuple[str, str], Gsb]:
    """Return ΔGSB of each pair of systems, as (system, other), whichever side each was shown on.

    A pair is named in the order of its first judgement. Every line counts: two people's verdicts on
    one query are two judgements, which the sign test takes for independent.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for judgement in judgements:
        pair = (judgement.left, judgement.right)
        turned = pair[::-1] in counts
        counter = counts.setdefault(pair[::-1] if turned else pair, Counter())
        good = "right" if turned else "left"
        same = judgement.verdict == "same"
        counter["same" if same else "good" if judgement.verdict == good else "bad"] += 1
    return {pair: Gsb(c["good"], c["same"], c["bad"]) for pair, c in counts.items()}


def judge_by_grades(
    system: Sequence[JudgedScores], other: Sequence[JudgedScores], *, k: int
) -> Gsb:
    """Return ΔGSB where graded labels judge: the better answer has the larger gain in its top k.

    The gain is the sum of the grades (negative ones as 0) of the k best documents, wherever in the
    top k they are; equal sums are "same". A system with fewer documents sums those it has.

    Args:
        system: One system's scores.
        other: The other's, of the same queries in the same order.
        k: How many documents a person would look at.
    """
    gaps = [_gain(a, k) - _gain(b, k) for a, b in zip(system, other, strict=True)]
    good, bad = (sum(sign * gap > 1e-9 for gap in gaps) for sign in (1, -1))
    return Gsb(good, len(gaps) - good - bad, bad)


def _gain(query: JudgedScores, k: int) -> float:
    return float(np.maximum(query.grades[query.order[:k]], 0.0).sum())
