import pytest

from loadtest.environments import EnvironmentMissingError
from tests.compat.clients import CLIENTS, Client
from tests.compat.run import try_client
from tests.compat.services import Services

CORE = [client for client in CLIENTS if client.core]


@pytest.mark.real_part
@pytest.mark.parametrize("client", CORE, ids=lambda client: f"{client.program}-{client.variant}")
def test_client_gets_the_services_ranking_and_its_refusals(
    client: Client, running: Services
) -> None:
    try:
        report = try_client(client, running)
    except EnvironmentMissingError as error:
        pytest.skip(f"{client.requirements.stem} cannot be installed: {error}")
    assert report.version
    assert [finding for finding in report.findings.values() if finding.state == "failed"] == []


def test_every_client_of_the_core_is_in_the_table() -> None:
    packages = {client.package for client in CORE}
    assert packages >= {"cohere", "litellm", "jina-haystack", "langchain-nvidia-ai-endpoints"}
    assert {client.path for client in CORE} >= {"/rerank", "/v1/rerank", "/v2/rerank"}
