"""Every setting of the service: one field is one CLI flag, environment variable and TOML key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from service.contract.bundle import Precision
from service.scorers.scorer import EngineName

PREFIX = "DISRANKER_"


class SettingsError(Exception):
    """A setting that is unknown or out of range; the message names it."""


class Settings(BaseSettings):
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
    precision: Precision | None = Field(
        default=None,
        description="Model of the bundle to serve: int8 is the fast one, fp32 the reference. "
        "By default int8 where the bundle offers it.",
    )
    engine: EngineName | None = Field(
        default=None,
        description="What runs the model: native, our int8 kernel for x86-64 from AVX2 on; or "
        "onnx, ONNX Runtime. By default native where it can, which the log and /metrics tell.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Cores of the engine, each scoring a pair of its own; 0 takes all that this "
        "process may use. In a container, set it to the CPU limit, which the process cannot see.",
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
    max_batch: int = Field(
        default=48, ge=1, le=1024, description="Most pairs the engine is handed at a time."
    )
    launch_tokens: int = Field(
        default=512,
        ge=1,
        description="Most tokens the engine is handed at a time. An urgent request waits for one "
        "such launch: smaller is fairer, larger has less overhead.",
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe log line to write. Probes and scrapes are logged at debug.",
    )

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
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{name}: no such setting (in {file})") from None
        raise SettingsError(f"{name}: {first['msg']}, got {first['input']!r}") from None
    except ValueError as error:  # a TOML file that is no TOML
        raise SettingsError(f"{file}: {error}") from None
