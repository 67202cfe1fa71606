"""What an overload run measured, as it is kept on the disk."""

from __future__ import annotations

from loadtest.bench.results import Part


class Capacity(Part):
    """What the service does for a few clients that wait for their answers."""

    requests_per_s: float
    tokens_per_s: float


class Bin(Part):
    """The requests that were due in a short time.

    Attributes:
        at_s: When it began, in seconds since the load began.
        due: How many were due.
        good: How many of them were answered within their deadline.
        slowest_ms: The slowest answer to an accepted one, from when it was due; None without one.
    """

    at_s: float
    due: int
    good: int
    slowest_ms: float | None


class Step(Part):
    """One load, from after its warm-up to its end.

    Attributes:
        name: Which.
        factor: Mean offered requests over capacity.
        seconds: How long it was measured.
        scheduled: Requests that were due.
        sent: Requests that the client sent.
        outcomes: How many came to which end.
        good_per_s: Answers a second that came within their deadline.
        good_tokens_per_s: Ranked tokens in them.
        accepted_p50_ms: Accepted requests' latency from when they were due; None without one.
        accepted_p99_ms: The same, 99th percentile.
        refused_p50_ms: Refusals' latency from when they were due; None without one.
        refused_p99_ms: The same, 99th percentile.
        handler_p50_ms: The service's own time for a refusal; None without one.
        handler_p99_ms: The same, 99th percentile.
        lag_p99_ms: How late the client sent.
        others_cpu: Share of all cores that was taken by programs other than service and client, its
            whole load included; None where the system does not tell.
        behind: Whether the client could not keep to its schedule.
        wasted_share: Tokens run in vain, of all tokens run, its whole load included; None where the
            service does not tell.
        unanswered: Rankings that the service counted and the client did not get.
    """

    name: str
    factor: float
    seconds: float
    scheduled: int
    sent: int
    outcomes: dict[str, int]
    good_per_s: float
    good_tokens_per_s: float
    accepted_p50_ms: float | None
    accepted_p99_ms: float | None
    refused_p50_ms: float | None
    refused_p99_ms: float | None
    handler_p50_ms: float | None
    handler_p99_ms: float | None
    lag_p99_ms: float
    others_cpu: float | None
    behind: bool
    wasted_share: float | None
    unanswered: int


class Recovery(Part):
    """How a service came back once too much load had ended.

    Attributes:
        load: Which load ended.
        ended_s: When, since the load began.
        seconds: From then to the first second of which every request was answered within its
            deadline; None where it did not come back.
        bins: The load and its answers by time.
    """

    load: str
    ended_s: float
    seconds: float | None
    bins: tuple[Bin, ...]


class Round(Part):
    """All loads, once."""

    capacity: Capacity
    steps: tuple[Step, ...]
    recoveries: tuple[Recovery, ...]


class OverloadResult(Part):
    """The service under too much load.

    Attributes:
        candidates: Documents a request.
        deadline_ms: Every request's deadline.
        flags: The service's flags.
        rounds: Every round.
    """

    candidates: int
    deadline_ms: float
    flags: str
    rounds: tuple[Round, ...]
