from collections.abc import Iterator

import pytest

from tests.compat.services import Services, services


@pytest.fixture(scope="session")
def running() -> Iterator[Services]:
    with services() as started:
        yield started
