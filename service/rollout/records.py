"""What is kept of a compared request: figures, and a record where there is an event log."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic_core import to_json

from service.contract.types import Float32s
from service.rollout.answered import Answered
from service.rollout.compare import Comparison, Guard, compare, guard, rounded
from service.rollout.event_log import EventLog
from service.rollout.metrics import ComparisonMetrics, Contestants


class Recorder:
    """Compares scores and keeps what comes of it; used by one thread at a time."""

    def __init__(
        self, metrics: ComparisonMetrics, events: EventLog | None = None, *, texts: bool = False
    ) -> None:
        """Take where to keep it.

        Args:
            metrics: Sums comparisons up.
            events: Keeps each; None for not.
            texts: Whether queries and documents are kept, too.
        """
        self._metrics = metrics
        self._events = events
        self._texts = texts

    def record(
        self, answered: Answered, against: str, version: str, scores: Float32s
    ) -> Guard | None:
        """Compare a request's scores with another model's, and keep it.

        Returns:
            Why one side's scores rank nothing; None where both rank.

        Args:
            answered: The request.
            against: The other model's name.
            version: Its version.
            scores: Its scores, float32 [n].
        """
        pair = Contestants(*answered.labels, against, version)
        guards = {"answered": guard(answered.scores.values), "against": guard(scores)}
        for side, found in guards.items():
            if found is not None:
                self._metrics.observe_guard(pair, side, found)
        if "not_finite" in guards.values():
            return "not_finite"
        comparison = compare(answered.scores.values, scores)
        self._metrics.observe(pair, comparison)
        sides = self._metrics.scores_of(pair)
        sides.answered.add(answered.scores.values)
        sides.against.add(scores)
        if self._events is not None:
            self._events.append(self._line(answered, pair, scores, comparison))
        return "constant" if "constant" in guards.values() else None

    def _line(
        self, answered: Answered, pair: Contestants, scores: Float32s, comparison: Comparison
    ) -> bytes:
        """Return a `ComparisonEvent` as JSON."""
        event = {
            "event": "comparison",
            "schema_version": 1,
            "time": datetime.fromtimestamp(answered.time, UTC),
            "request_id": answered.request_id,
            "model": {"name": pair.model, "version": pair.version, "variant": pair.variant},
            "against": {"name": pair.against, "version": pair.against_version, "variant": "shadow"},
            "ids": [candidate.id for candidate in answered.candidates],
            "scores": answered.scores.values.tolist(),
            "against_scores": scores.tolist(),
            "comparison": rounded(comparison),
        }
        if self._texts:
            event["query"] = answered.query
            event["documents"] = [
                {"title": candidate.title, "summary": candidate.summary}
                for candidate in answered.candidates
            ]
        return to_json(event)
