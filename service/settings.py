"""Every setting of the service: one field is one CLI flag, environment variable and TOML key."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.api.keys import ApiKey
from service.engine_settings import EngineSettings
from service.shadow_settings import ShadowSettings

PREFIX = "DISRANKER_"

_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:\d+)?|https?://\[[0-9a-fA-F:]+\](:\d+)?")


class SettingsError(Exception):
    """A setting that is unknown or out of range; the message names it."""


class Settings(BaseSettings, ShadowSettings, EngineSettings):
    """What can be set, from the command line, the environment or a TOML file, in that order."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    config: Path | None = Field(
        default=None, description="TOML file with any of these settings as its keys."
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 takes traffic from other machines.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="Port; 0 takes a free one.")
    bundle: Path = Field(
        default=Path("models/default"),
        description="Directory of the model bundle; every byte of it is checked at start.",
    )
    canary: Path | None = Field(
        default=None,
        description="Bundle of a candidate, loaded beside the bundle and given a part of the "
        "requests.",
    )
    canary_weight: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Part of the routing keys that go to the canary, until it is set anew.",
    )
    rollout_weights: Path | None = Field(
        default=None,
        description="File with the canary's weight, as `python -m service rollout run` writes it; "
        "looked at every second. By default there is none, and /admin sets weights.",
    )
    shadow: Path | None = Field(
        default=None,
        description="Bundle that is loaded to rank copies of requests; nobody gets its answers.",
    )
    bundles_root: Path | None = Field(
        default=None,
        description="Directory of the bundles that /admin may load; by default it may load none.",
    )
    split_salt: str = Field(
        default="disranker",
        max_length=256,
        description="Which routing keys a canary gets first depends on it; the same on every "
        "replica.",
    )
    default_deadline_ms: float = Field(
        default=30_000,
        gt=0,
        le=3_600_000,
        description="Deadline of a request that names none. It is also how long a body may take "
        "to arrive.",
    )
    budget_ms: float = Field(
        default=10,
        gt=0,
        allow_inf_nan=False,
        description="Latency to aim for. It is never enforced: slower answers are counted in "
        "disranker_budget_misses_total.",
    )
    max_backlog_tokens: int = Field(
        default=1_048_576,
        ge=1,
        description="Most tokens of accepted requests; beyond it requests get 429. It bounds "
        "memory; waiting time is bounded by the deadlines.",
    )
    token_cache_mb: int = Field(
        default=64,
        ge=0,
        le=1_000_000,
        description="Most megabytes of memory for the token ids of documents seen before, 0 for "
        "none. A megabyte holds about 2,000 documents of 100 tokens.",
    )
    score_cache_mb: int = Field(
        default=16,
        ge=0,
        le=1_000_000,
        description="Most megabytes of memory for the scores of query-document pairs seen before, "
        "0 for none. A megabyte holds about 4,000 scores.",
    )
    max_body_bytes: int = Field(
        default=1_000_000, ge=1, description="Largest request body; a larger one gets 413."
    )
    max_requests: int = Field(
        default=400,
        ge=1,
        le=100_000,
        description="Most requests to rank in progress, uploads included; more get 429. Twice as "
        "many connections are kept open.",
    )
    max_bodies_mb: int = Field(
        default=64,
        ge=1,
        le=1_000_000,
        description="Most megabytes of bodies of requests in progress; beyond it requests get 429. "
        "Read and parsed, a body takes a few times its size.",
    )
    max_query_chars: int = Field(
        default=4_096,
        ge=1,
        description="Longest query; a longer one gets 422. The model reads far less of it.",
    )
    stop_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="How long a stop waits for accepted requests. Give the supervisor that sends "
        "SIGTERM a few seconds more.",
    )
    keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        default=(),
        description="Keys that open the service, as a JSON array or TOML tables; python -m service "
        "new-key makes one. A scope is guarded as soon as a key has it; without any with the "
        "scope rank, anybody may rank.",
    )
    admin: bool = Field(
        default=False,
        description="Serve /admin. It needs a key with the scope admin, unless the host is "
        "loopback and there are no keys at all.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may call the service, by comma, * for all; none by "
        "default.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/@]+(/\S*)?$",
        description="Base URL of an OpenTelemetry collector, http://localhost:4318 for one; each "
        "request to rank is sent there as a trace, by OTLP over HTTP. By default none is. Needs "
        "the extra [otel]; names, sampling and headers are OpenTelemetry's own OTEL_… variables.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe log line to write. Probes and scrapes are logged at debug.",
    )

    @field_validator("canary_weight")
    @classmethod
    def _check_weight(cls, weight: float, info: ValidationInfo) -> float:
        if weight and info.data.get("canary", "") is None:
            raise PydanticCustomError("canary_weight", "there is no canary; one begins at 0")
        return weight

    @field_validator("keys", mode="before")
    @classmethod
    def _parse_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise PydanticCustomError("keys", "not a JSON array") from None

    @field_validator("keys")
    @classmethod
    def _check_keys(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        if len({key.name for key in keys}) < len(keys):
            raise PydanticCustomError("keys", "two keys have the same name")
        if len({key.sha256 for key in keys}) < len(keys):
            raise PydanticCustomError("keys", "a key is given twice")
        return keys

    @field_validator("admin")
    @classmethod
    def _check_admin(cls, admin: bool, info: ValidationInfo) -> bool:
        keys, host = info.data.get("keys", ()), info.data.get("host", "")
        guarded = any("admin" in key.scopes for key in keys)
        if admin and not guarded and (keys or not is_loopback(host)):
            raise PydanticCustomError(
                "admin",
                "/admin needs a key with the scope admin, unless the host is loopback and there "
                "are no keys at all",
            )
        return admin

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_ORIGIN.fullmatch(origin) for origin in origins):
            raise PydanticCustomError(
                "cors_origins", "an origin is like https://example.com or http://localhost:3000"
            )
        return origins

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first: flags, environment, TOML."""
        flags = init_settings()
        file = flags.get("config") or os.environ.get(f"{PREFIX}CONFIG")
        toml = TomlConfigSettingsSource(settings_cls, toml_file=file)
        return init_settings, _StrictEnv(settings_cls), toml


class _StrictEnv(EnvSettingsSource):
    """The environment, in which a variable with our prefix and no field is an error."""

    def __call__(self) -> dict[str, Any]:
        known = {f"{PREFIX}{name}".upper() for name in self.settings_cls.model_fields}
        ours = (name for name in os.environ if name.upper().startswith(PREFIX))
        if unknown := sorted(name for name in ours if name.upper() not in known):
            raise SettingsError(f"unknown environment variable {', '.join(unknown)}")
        return super().__call__()


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings, given the flags that were set.

    Raises:
        SettingsError: An unknown or bad setting, or a TOML file that cannot be read.
    """
    file = flags.get("config") or os.environ.get(f"{PREFIX}CONFIG")
    if file and not Path(file).is_file():
        raise SettingsError(f"config: no such file: {file}")
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"][:1] == ("keys",):  # whatever is wrong there may be a key itself
            raise SettingsError(f"{_key_path(first['loc'])}: {first['msg']}") from None
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{name}: no such setting (in {file})") from None
        raise SettingsError(f"{name}: {first['msg']}, got {first['input']!r}") from None
    except ValueError as error:  # a TOML file that is no TOML
        raise SettingsError(f"{file}: {error}") from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host's ports; False where that is not sure."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key_path(loc: tuple[int | str, ...]) -> str:
    """Return a place in the keys, without a name that is not a field's."""
    known = (
        part for part in loc if isinstance(part, int) or part in ("keys", *ApiKey.model_fields)
    )
    return ".".join(map(str, known))
