"""The peers: how each is served with our weights, at its own best settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadtest.weights import Weights

Engine = Literal["torch", "onnx"]
Form = Literal["checkpoint", "fp32", "int8"]

INFINITY = (
    *("v2", "--served-model-name", "bench", "--device", "cpu", "--host", "127.0.0.1"),
    *("--port", "{port}", "--no-bettertransformer", "--no-compile", "--log-level", "error"),
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that ranks with our weights.

    Attributes:
        name: What it is called in the tables.
        environment: Its requirements file in this folder.
        package: Whose version is reported.
        engine: What computes.
        form: Which form of the weights it loads.
        program: A module of ours, run in its environment; or a script of its own.
        flags: Its arguments; `{port}`, `{threads}` and `{model}` are filled in.
        path: Where to POST a query and its documents.
        ready: What answers 200 once it is ready.
        settings: What was chosen, for the report.
    """

    name: str
    environment: str
    package: str
    engine: Engine
    form: Form
    program: str
    flags: tuple[str, ...]
    path: str
    ready: str
    settings: str

    @property
    def requirements(self) -> Path:
        """The file that locks its environment."""
        return Path(__file__).with_name(f"{self.environment}.txt")

    def command(self, python: Path, weights: Weights, threads: int) -> list[str]:
        """Return its command line; `{port}` is left for who starts it."""
        if self.program.startswith("loadtest."):
            start = [str(python), "-m", self.program]
        else:
            start = [str(python.parent / self.program)]
        flags = (f.replace("{threads}", str(threads)) for f in self.flags)
        return start + [f.replace("{model}", str(self.folder(weights))) for f in flags]

    def folder(self, weights: Weights) -> Path:
        """Return the folder of the weights it loads."""
        folder: Path = getattr(weights, self.form)
        return folder.resolve()


_WRAPPED = ("--model", "{model}", "--port", "{port}", "--threads", "{threads}")
_MOSEC = "up to 8 requests a batch within 2 ms, then 8 pairs of similar length a call"

PEERS = (
    Peer(
        name="sentence-transformers CrossEncoder",
        environment="crossencoder",
        package="sentence-transformers",
        engine="torch",
        form="checkpoint",
        program="loadtest.peers.serve_crossencoder",
        flags=_WRAPPED,
        path="/rerank",
        ready="/",
        settings="torch fp32, batches of 8, threads that wait without spinning, behind a minimal "
        "HTTP server of ours",
    ),
    Peer(
        name="Infinity, torch",
        environment="infinity",
        package="infinity-emb",
        engine="torch",
        form="checkpoint",
        program="infinity_emb",
        flags=(*INFINITY, "--engine", "torch", "--model-id", "{model}", "--batch-size", "8"),
        path="/rerank",
        ready="/health",
        settings="torch fp32, batches of 8, threads that wait without spinning, no "
        "BetterTransformer, no compile",
    ),
    Peer(
        name="Infinity, optimum fp32",
        environment="infinity",
        package="infinity-emb",
        engine="onnx",
        form="fp32",
        program="infinity_emb",
        flags=(*INFINITY, "--engine", "optimum", "--model-id", ".", "--batch-size", "8"),
        path="/rerank",
        ready="/health",
        settings="our fused fp32 graph, batches of 8",
    ),
    Peer(
        name="Infinity, optimum int8",
        environment="infinity",
        package="infinity-emb",
        engine="onnx",
        form="int8",
        program="infinity_emb",
        flags=(*INFINITY, "--engine", "optimum", "--model-id", ".", "--batch-size", "8"),
        path="/rerank",
        ready="/health",
        settings="the bundle's int8 graph, batches of 8",
    ),
    Peer(
        name="FlashRank, fp32",
        environment="flashrank",
        package="flashrank",
        engine="onnx",
        form="fp32",
        program="loadtest.peers.serve_flashrank",
        flags=_WRAPPED,
        path="/rerank",
        ready="/",
        settings="our fused fp32 graph, behind a minimal HTTP server of ours",
    ),
    Peer(
        name="FlashRank, int8",
        environment="flashrank",
        package="flashrank",
        engine="onnx",
        form="int8",
        program="loadtest.peers.serve_flashrank",
        flags=_WRAPPED,
        path="/rerank",
        ready="/",
        settings="the bundle's int8 graph, behind a minimal HTTP server of ours",
    ),
    Peer(
        name="mosec and ONNX Runtime, int8, one worker",
        environment="mosec",
        package="mosec",
        engine="onnx",
        form="int8",
        program="loadtest.peers.serve_mosec",
        flags=(*_WRAPPED, "--workers", "1"),
        path="/inference",
        ready="/",
        settings=f"the bundle's int8 graph; {_MOSEC}, all cores on a call",
    ),
    Peer(
        name="mosec and ONNX Runtime, int8, a worker a core",
        environment="mosec",
        package="mosec",
        engine="onnx",
        form="int8",
        program="loadtest.peers.serve_mosec",
        flags=(*_WRAPPED, "--workers", "{threads}"),
        path="/inference",
        ready="/",
        settings=f"the bundle's int8 graph; {_MOSEC}, one core on a call",
    ),
)

ENVIRON = {
    # Torch's threads then sleep while they wait instead of spinning, as ours do: on shared cores,
    # two that spin on one core made the CrossEncoder 2.7 times as slow.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}
