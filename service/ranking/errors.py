"""Everything that can go wrong with a request, as one tree.

RankError
├── InvalidRequestError            422, or 400 where the body is no JSON
│   └── InfeasibleDeadlineError    422
├── TextTooLongError               422
├── NoShadowError                  409
├── ShadowFailedError              502, 503 or 504
├── BodyError
│   ├── BodyTooLargeError          413
│   └── BodyTooSlowError           408
├── NoLaneError                    409
├── ConflictError                  409
├── OverloadedError                429
├── ScoringError                   500
├── NotReadyError                  503
└── DeadlineExpiredError           504
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request.

    Attributes:
        field: Where, as a path like `candidates[3].title`.
        message: What is wrong, without the value.
        value: The value found, or a description of it; never text of a document.
        limit: The limit it breaks, where there is one.
    """

    field: str
    message: str
    value: str | int | float | None = None
    limit: int | float | None = None


class RankError(Exception):
    """A request without a ranking; the message is public.

    Attributes:
        status: HTTP status.
        error_type: One word for programs.
        faults: What is wrong with which field, where the request is to blame.
        retry_after_s: When trying again may help; None where it will not.
    """

    status = 500
    error_type = "internal"

    def __init__(
        self, message: str, *, faults: tuple[Fault, ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.faults = faults
        self.retry_after_s = retry_after_s


class InvalidRequestError(RankError):
    """The request breaks a rule."""

    error_type = "validation"

    def __init__(self, *faults: Fault, status: int = 422, total: int | None = None) -> None:
        """Take the first faults, and how many there are in total where that is more."""
        first = faults[0]
        others = (total or len(faults)) - 1
        more = f" (and {others} more)" if others else ""
        super().__init__(f"{first.field}: {first.message}{more}", faults=faults)
        self.status = status


class InfeasibleDeadlineError(InvalidRequestError):
    """Even an idle engine could not meet the deadline."""

    error_type = "infeasible_deadline"


class TextTooLongError(RankError):
    """A text is longer than the model reads, and was not to be cut."""

    status = 422
    error_type = "validation"

    def __init__(self, index: int | None, *, limit: int) -> None:
        """Say which candidate it is, None for the query, and how many tokens it may have."""
        name = "the query" if index is None else f"document {index}"
        super().__init__(f"{name} has more than the {limit} tokens that the model reads of it")
        self.index = index
        self.limit = limit


class BodyError(RankError):
    """The body as a whole breaks a limit."""

    def __init__(self, message: str, *, value: str, limit: int | float) -> None:
        fault = Fault("body", message, value=value, limit=limit)
        super().__init__(f"body: {message}: {value}, the limit is {limit}", faults=(fault,))


class BodyTooLargeError(BodyError):
    """The body is over the limit."""

    status = 413
    error_type = "body_too_large"


class BodyTooSlowError(BodyError):
    """The body did not arrive in time."""

    status = 408
    error_type = "body_too_slow"


class NoLaneError(RankError):
    """The request asks for a lane that nothing serves."""

    status = 409
    error_type = "no_lane"

    def __init__(self, lane: str) -> None:
        super().__init__(f"X-Variant: there is no {lane} here")


class ConflictError(RankError):
    """What is asked for does not go with what is there."""

    status = 409
    error_type = "conflict"

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.field}: {fault.message}", faults=(fault,))


class OverloadedError(RankError):
    """The work already accepted leaves no room for this request."""

    status = 429
    error_type = "overloaded"

    def __init__(
        self, message: str, *, retry_after_s: float, predicted_wait_s: float | None = None
    ) -> None:
        """Say when to try again, and how long an answer would have taken where that is known."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.predicted_wait_s = predicted_wait_s


class ScoringError(RankError):
    """The engine failed; the cause is in the log."""

    error_type = "scoring_failed"

    def __init__(self) -> None:
        super().__init__("the ranking model failed on this request")


class NotReadyError(RankError):
    """The service is starting or stopping, or its model failed the start-up check."""

    status = 503
    error_type = "not_ready"

    def __init__(self) -> None:
        super().__init__("not ready to rank; /readyz says why", retry_after_s=1.0)


class DeadlineExpiredError(RankError):
    """The request was accepted but its deadline passed before all was scored."""

    status = 504
    error_type = "deadline_expired"

    def __init__(self) -> None:
        super().__init__(
            "the deadline passed, or was sure to pass, before every candidate was scored"
        )


class NoShadowError(RankError):
    """There is no model to compare with."""

    status = 409
    error_type = "no_shadow"

    def __init__(self) -> None:
        super().__init__("no shadow is served: set shadow_url, or load a bundle as the shadow")


class ShadowFailedError(RankError):
    """The model to compare with gave no scores."""

    def __init__(self, reason: str) -> None:
        """Take why: `late`, `unavailable` and the like."""
        super().__init__(f"the shadow gave no scores: {reason}; the log says more")
        self.status = {"late": 504, "unavailable": 503, "overloaded": 503}.get(reason, 502)
        self.error_type = f"shadow_{reason}"
        self.retry_after_s = 1.0 if self.status == 503 else None
