"""A real tritonserver on free ports of this machine, with exported models as they are."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from contextlib import closing, suppress
from pathlib import Path

import httpx

ENVIRONMENT = Path(__file__).parents[2] / ".venv-triton"
START_S = 60.0


def packages() -> Path | None:
    """Return the site-packages of the environment Triton is installed in, None where it is not."""
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/pytriton/tritonserver"))
    return found[0].parents[1] if found else None


class Triton:
    """A Triton that can be killed and started again on the same ports."""

    def __init__(self, repository: Path, scratch: Path) -> None:
        """Prepare to serve a repository; `scratch` is for backends, logs and the brake."""
        installed = packages()
        assert installed is not None
        self._packages = installed
        self._repository = repository
        self._backends = _backends(installed, scratch / "backends")
        self._log = scratch / "triton.log"
        self._http, self._grpc, self._metrics = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self.hold = scratch / "hold"

    @property
    def url(self) -> str:
        """Where it speaks gRPC."""
        return f"127.0.0.1:{self._grpc}"

    def start(self) -> None:
        """Start, and wait until every model is loaded."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # arguments of our own
                [str(self._server / "bin/tritonserver"), *self._arguments()],
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(self._log.read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and its backends at once, as a crash would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def load(self, model: str) -> None:
        """Load a model, or load it again; returns once the new version serves."""
        self._post(f"/v2/repository/models/{model}/load")

    def unload(self, model: str) -> None:
        """Take a model out of service."""
        self._post(f"/v2/repository/models/{model}/unload")

    def batches(self, model: str) -> dict[int, int]:
        """Return how many batches of each size the model ran."""
        answer = httpx.get(f"http://127.0.0.1:{self._http}/v2/models/{model}/stats", timeout=10)
        (stats,) = answer.raise_for_status().json()["model_stats"]
        return {
            entry["batch_size"]: entry["compute_infer"]["count"] for entry in stats["batch_stats"]
        }

    def metric(self, name: str, model: str) -> float:
        """Return a Prometheus figure of a model, summed over its label sets."""
        text = httpx.get(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10).text
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.split()[-1]) for line in lines if f'model="{model}"' in line)

    @property
    def _server(self) -> Path:
        return self._packages / "pytriton/tritonserver"

    def _arguments(self) -> list[str]:
        return [
            f"--model-repository={self._repository}",
            f"--backend-directory={self._backends}",
            "--model-control-mode=explicit",
            "--load-model=*",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            *("--http-address=127.0.0.1", f"--http-port={self._http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={self._grpc}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={self._metrics}"),
            "--metrics-interval-ms=100",
        ]

    def _environment(self) -> dict[str, str]:
        libraries = [self._packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        return {
            # By its first Python, the backends' interpreter finds its packages.
            "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "STAND_IN_HOLD": str(self.hold),
        }

    def _is_ready(self) -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._http}/v2/health/ready", timeout=1)
        except httpx.TransportError:
            return False
        return answer.is_success

    def _post(self, path: str) -> None:
        answer = httpx.post(f"http://127.0.0.1:{self._http}{path}", json={}, timeout=60)
        assert answer.is_success, answer.text


def _backends(installed: Path, target: Path) -> Path:
    """Write a backend directory: Triton's for Python, and the stand-in that it runs."""
    server = installed / "pytriton/tritonserver"
    version = installed.parent.name.removeprefix("python")
    shutil.copytree(server / "backends/python", target / "python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, target / "python")
    shutil.copytree(Path(__file__).with_name("backends") / "onnxruntime", target / "onnxruntime")
    return target


def _free_ports(n: int) -> list[int]:
    with closing(_Sockets(n)) as sockets:
        return sockets.ports


class _Sockets:
    """Ports that were free a moment ago, all different."""

    def __init__(self, n: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
        self.ports = [int(sock.getsockname()[1]) for sock in self._sockets]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
