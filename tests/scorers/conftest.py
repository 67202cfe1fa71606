from pathlib import Path

import pytest

from service.contract.bundle import Bundle
from tests.tiny import tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("scorers") / "tiny"))


@pytest.fixture(scope="session")
def weights(bundle: Bundle) -> Path:
    path = bundle.weights_path("int8")
    assert path is not None
    return path
