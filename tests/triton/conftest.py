from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.triton import export_triton
from export.triton_config import Target
from service.contract.bundle import Bundle
from service.engines.triton import TritonEngine
from tests.service.conftest import anyio_backend  # noqa: F401
from tests.tiny import tiny_bundle
from tests.triton.server import Triton, packages


@dataclass(frozen=True, slots=True)
class Served:
    """A bundle whose fp32 model a real Triton serves."""

    triton: Triton
    bundle: Bundle
    repository: Path
    model: str

    def engine(self, **changes: str) -> TritonEngine:
        known = {"url": self.triton.url, "model": self.model} | changes
        return TritonEngine(
            known["url"], model=known["model"], manifest=self.bundle.manifest, precision="fp32"
        )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if packages() is None:
        pytest.skip("Triton is not installed in .venv-triton; `make test` does that")
    folder = tmp_path_factory.mktemp("triton")
    bundle = Bundle.open(tiny_bundle(folder / "tiny", precisions=("fp32",)))
    repository = folder / "repository"
    model = export_triton(bundle, repository, Target("cpu", "fp32"))
    triton = Triton(repository, folder)
    triton.start()
    try:
        yield Served(triton, bundle, repository, model.name)
    finally:
        triton.kill()


@pytest.fixture
def held(served: Served) -> Iterator[Callable[[], None]]:
    """Hold every batch of Triton back; the function lets them go."""
    served.triton.hold.touch()

    def let_go() -> None:
        served.triton.hold.unlink(missing_ok=True)

    yield let_go
    let_go()
