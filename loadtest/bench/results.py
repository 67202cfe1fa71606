"""What the sections measured, as it is kept on the disk."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the results."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Result = TypeVar("Result", bound=Part)


class EngineRow(Part):
    """Tokens/s of a service or of a bare loop.

    Attributes:
        name: Which.
        detail: Its settings.
        floor: The bare loop that a service is held against; a loop's own name.
        tokens_per_s: Real tokens, without padding, one value a round.
        padding: Tokens run beside the real ones, as a share of them.
        client_cpu: The client's share of a core; None for a loop without a client.
    """

    name: str
    detail: str
    floor: str
    tokens_per_s: tuple[float, ...]
    padding: float = 0.0
    client_cpu: float | None = None


class EngineResult(Part):
    """Services against bare loops on the same token pairs.

    Attributes:
        pair_tokens: Mean real tokens of a pair.
        services: The configurations of the service.
        loops: The bare loops by their kind: `native` and `onnx` (the bundle's int8), `plain`
            (plain dynamic int8), `fp32`.
        searched: Tokens/s in a short trial, by loop and setting.
    """

    pair_tokens: float
    services: tuple[EngineRow, ...]
    loops: dict[str, EngineRow]
    searched: dict[str, dict[str, float]]


class PeerRow(Part):
    """One server.

    Attributes:
        name: Which.
        engine: `torch`, `onnx` or `ours`: whom it is compared as.
        detail: Its version and settings.
        missing: Why it was not measured; empty where it was.
        latencies_ms: One client's requests, all rounds.
        requests_per_s: At saturation, one value a round.
        tau_ours: Mean τ-b of its ranking with the first service's.
        tau_fp32: Mean τ-b of its ranking with that of the fp32 weights, pair by pair.
        client_cpu: The client's share of a core at saturation.
        failures: Requests that were not answered as asked.
    """

    name: str
    engine: str
    detail: str
    missing: str = ""
    latencies_ms: tuple[float, ...] = ()
    requests_per_s: tuple[float, ...] = ()
    tau_ours: float | None = None
    tau_fp32: float | None = None
    client_cpu: float | None = None
    failures: int = 0


class PeersResult(Part):
    """All servers on the same requests with the same weights."""

    candidates: int
    pair_tokens: float
    rows: tuple[PeerRow, ...]


class OverheadRow(Part):
    """A configuration's requests, one client, token cache warm, score cache off.

    Attributes:
        name: Which.
        latencies_ms: The client's clock.
        overheads_ms: The same less the stages tokenise, queue and infer.
    """

    name: str
    latencies_ms: tuple[float, ...]
    overheads_ms: tuple[float, ...]


class FrontEndResult(Part):
    """Time outside tokenising, queue and inference."""

    candidates: int
    rows: tuple[OverheadRow, ...]


class CostRow(Part):
    """One size of request, one client, caches off.

    Attributes:
        name: Which configuration.
        candidates: Documents a request.
        document_tokens: Tokens of each; None for real lengths.
        tokens: Mean tokens of a request.
        latencies_ms: The client's clock.
    """

    name: str
    candidates: int
    document_tokens: int | None
    tokens: float
    latencies_ms: tuple[float, ...]


class CostResult(Part):
    """Cost by number and length of documents."""

    rows: tuple[CostRow, ...]


class CacheRow(Part):
    """A replayed query log with the caches on and off.

    Attributes:
        name: Which configuration.
        on_s: Seconds for a chunk of the log with the default caches, a value a chunk.
        off_s: The same without caches.
        on_ms: Latency of every request with caches.
        off_ms: Latency of every request without.
        run_share: Tokens the model ran on with caches, of all the tokens ranked.
    """

    name: str
    on_s: tuple[float, ...]
    off_s: tuple[float, ...]
    on_ms: tuple[float, ...]
    off_ms: tuple[float, ...]
    run_share: float


class CacheResult(Part):
    """The factor of warm caches on a repeating log."""

    requests: int
    repeated: float
    rows: tuple[CacheRow, ...]


class Host(Part):
    """Where and with what a section was measured."""

    cpu: str
    cores: int
    memory_gb: float
    flags: tuple[str, ...]
    system: str
    versions: dict[str, str]
    commit: str
    bundle: str
    load_before: float


class Measured(Part, Generic[Result]):
    """A section's result, and when and where it was measured."""

    section: str
    at: str
    seconds: float
    command: str
    requests: str
    host: Host
    result: Result
