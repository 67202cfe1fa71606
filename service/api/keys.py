"""Keys: who may do what, and how much of it."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from service.ranking.allowance import Allowance
from service.ranking.errors import RankError

Scope = Literal["rank", "admin", "metrics", "variant"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Reason = Literal["missing", "unknown", "scope", "rate"]

PREFIX = "drk_"
"""Of every key we make, so that people and secret scanners know one when they see it."""

NAME = re.compile(rf"(?!{PREFIX})[A-Za-z0-9._-]{{1,64}}")
"""Of a key; never one that could be the key itself, since names are logged."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class ApiKey(BaseModel):
    """A key as the settings have it: its hash, never itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    sha256: str = Field(repr=False)
    scopes: tuple[Scope, ...] = Field(default=("rank",), min_length=1)
    tokens_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    burst_s: float = Field(default=2, gt=0, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise PydanticCustomError(
                "name", f"a name is 1 to 64 of A-Z a-z 0-9 . _ - and does not begin with {PREFIX}"
            )
        return name

    @field_validator("sha256")
    @classmethod
    def _check_sha256(cls, digest: str) -> str:
        if not _SHA256.fullmatch(digest):
            raise PydanticCustomError(
                "sha256",
                "not the 64 hex digits of a key's sha256; python -m service new-key makes both",
            )
        return digest.lower()


def fresh_key() -> tuple[str, str]:
    """Return a key of 256 random bits and its sha256 in hex."""
    key = f"{PREFIX}{secrets.token_urlsafe(32)}"
    return key, sha256(key.encode()).hexdigest()


class MissingKeyError(RankError):
    """The request has no key."""

    status = 401
    error_type = "unauthorized"

    def __init__(self) -> None:
        super().__init__("a key is needed; send it once, as `Authorization: Bearer KEY`")


class UnknownKeyError(RankError):
    """The request's key is none of ours."""

    status = 401
    error_type = "unauthorized"

    def __init__(self) -> None:
        super().__init__("this key is not known here")


class ScopeError(RankError):
    """The request's key is for other things."""

    status = 403
    error_type = "forbidden"

    def __init__(self) -> None:
        super().__init__("this key is not for this endpoint")


class RateError(RankError):
    """The request's key has used its tokens up for now."""

    status = 429
    error_type = "rate_limited"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            "this key has used up its tokens for now; try again later", retry_after_s=retry_after_s
        )


@dataclass(slots=True)
class Holder:
    """A key in use.

    Attributes:
        key: Its settings.
        allowance: What it may still spend; None for any amount.
        tokens: What it has spent.
        refusals: How often it was refused, by reason.
    """

    key: ApiKey
    allowance: Allowance | None
    tokens: int = 0
    refusals: dict[Reason, int] = field(default_factory=lambda: {"scope": 0, "rate": 0})

    def require_allowance(self) -> None:
        """Pass unless more was spent than was allowed.

        Raises:
            RateError: It was.
        """
        if self.allowance is None:
            return
        wait_s = self.allowance.wait_s(monotonic())
        if wait_s > 0:
            self.refusals["rate"] += 1
            raise RateError(wait_s)

    def spend(self, tokens: int) -> None:
        """Take tokens off what may be spent, into debt where they are more."""
        self.tokens += tokens
        if self.allowance is not None:
            self.allowance.spend(tokens, monotonic())


class Keys:
    """All keys in use."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.holders: Sequence[Holder] = [Holder(key, _allowance(key)) for key in keys]
        self.refusals: dict[Reason, int] = {"missing": 0, "unknown": 0}
        self._scopes = {scope for holder in self.holders for scope in holder.key.scopes}

    def guard(self, scope: Scope) -> bool:
        """Return whether a scope needs a key: where some key has it, and always if not for all."""
        return scope in self._scopes or scope in ("admin", "variant")

    def holder(self, needed: Iterable[Scope], authorization: Sequence[bytes]) -> Holder:
        """Return who asks.

        Args:
            needed: The scopes that the request needs.
            authorization: The values of its `Authorization` headers.

        Raises:
            MissingKeyError: There is no key, or more than one.
            UnknownKeyError: It is none of ours.
            ScopeError: It lacks one of them.
        """
        key = _bearer(authorization)
        if key is None:
            self.refusals["missing"] += 1
            raise MissingKeyError
        holder = self._find(key)
        if holder is None:
            self.refusals["unknown"] += 1
            raise UnknownKeyError
        if not set(needed).issubset(holder.key.scopes):
            holder.refusals["scope"] += 1
            raise ScopeError
        return holder

    def _find(self, key: bytes) -> Holder | None:
        """Return a key's holder, in a time that tells nothing of which or how much matched."""
        digest = sha256(key).hexdigest()
        found = None
        for holder in self.holders:
            if hmac.compare_digest(holder.key.sha256, digest):
                found = holder
        return found


def _allowance(key: ApiKey) -> Allowance | None:
    if key.tokens_per_s is None:
        return None
    return Allowance(key.tokens_per_s, burst_s=key.burst_s, now=monotonic())


def _bearer(authorization: Sequence[bytes]) -> bytes | None:
    if len(authorization) != 1:
        return None
    scheme, _, key = authorization[0].partition(b" ")
    return key.strip() or None if scheme.lower() == b"bearer" else None
