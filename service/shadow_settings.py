"""The settings of the shadow and of the event log."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from service.scorers.wire import Protocol

T = TypeVar("T")


class ShadowSettings(BaseModel):
    """What answered requests are compared with, and what that may cost; a part of `Settings`."""

    shadow_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/@?#]+(/[^\s?#]*)?$",
        description="Base URL of a reranker that answered requests are compared with: a teacher, "
        "say. Texts are sent there. By default there is none. Needs the extra [remote]; a bundle "
        "in the shadow lane goes before it.",
    )
    shadow_protocol: Protocol = Field(
        default="disranker",
        description="What it speaks: disranker, another instance of this service; tei, "
        "text-embeddings-inference's /rerank; vllm, its /score, for BERTs; or vllm-classify, its "
        "/classify by our token ids, for decoders.",
    )
    shadow_model: str | None = Field(
        default=None,
        description="What it calls its model, which vLLM asks for; also its name in the metrics.",
    )
    shadow_tokenizer: Path | None = Field(
        default=None,
        description="Folder of the decoder's checkpoint or its tokenizer, for vllm-classify.",
    )
    shadow_key: SecretStr | None = Field(
        default=None, description="Bearer key for it. Set it by its environment variable."
    )
    shadow_sample: float = Field(
        default=0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the answered requests that it scores, chosen by a hash of the "
        "request id.",
    )
    shadow_timeout_ms: float = Field(
        default=1_000,
        gt=0,
        le=600_000,
        description="How long it may take for a request, and a request may wait for it.",
    )
    shadow_concurrency: int = Field(
        default=2, ge=1, le=256, description="Most requests it has at a time."
    )
    shadow_waiting: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Most answered requests that wait for it; more are dropped, the newest first.",
    )
    shadow_max_queue_ms: float = Field(
        default=10,
        gt=0,
        le=3_600_000,
        description="It gets nothing while requests to rank wait longer than this; a shadow in "
        "this process gets nothing while any waits.",
    )
    shadow_requests_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Most requests it gets in a second, over time; no limit by default.",
    )
    shadow_tokens_per_s: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000_000,
        description="Most tokens it gets in a second, over time, counted by the model that "
        "answered; no limit by default.",
    )
    event_log: Path | None = Field(
        default=None,
        description="Folder for a record of every comparison, as JSON Lines: ids and scores. By "
        "default there is none.",
    )
    event_log_texts: bool = Field(
        default=False,
        description="Record queries and documents, too. They may be personal data.",
    )
    event_log_file_mb: float = Field(
        default=64,
        gt=0,
        le=100_000,
        description="Megabytes at which a file of records is compressed and another begun.",
    )
    event_log_file_s: float = Field(
        default=3_600, ge=1, le=604_800, description="Age at which it is, in seconds."
    )

    @field_validator("shadow_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        try:
            if url is not None:
                _ = urlsplit(url).port
        except ValueError:
            raise PydanticCustomError("url", "its port is none") from None
        return url

    @field_validator("shadow_model", "shadow_tokenizer")  # not the key: errors quote values
    @classmethod
    def _check_remote(cls, value: T, info: ValidationInfo) -> T:
        if value is not None and info.data.get("shadow_url", "") is None:
            raise PydanticCustomError("remote", "it is for a shadow_url, and there is none")
        return value

    @field_validator("shadow_tokenizer")
    @classmethod
    def _check_tokenizer(cls, tokenizer: Path | None, info: ValidationInfo) -> Path | None:
        by_ids = info.data.get("shadow_protocol") == "vllm-classify"
        if by_ids != (tokenizer is not None):
            raise PydanticCustomError(
                "tokenizer", "shadow_protocol vllm-classify and shadow_tokenizer need each other"
            )
        return tokenizer
