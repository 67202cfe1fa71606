from pathlib import Path

import pytest

from service.contract.bundle import Bundle
from tests.tiny import TOY_GATES, tiny_checkpoint
from tests.training.conftest import one_thread  # noqa: F401


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("export") / "checkpoint")


@pytest.fixture(scope="session")
def bundle(checkpoint: Path) -> Bundle:
    """Return a bundle of both precisions, exported from the toy checkpoint."""
    from export.bundle import export_bundle

    target = checkpoint.parent / "bundle"
    return export_bundle(checkpoint, target, name="toy", gates=TOY_GATES).bundle
