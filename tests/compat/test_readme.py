"""The README's client snippets, run as they are printed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.environments import EnvironmentMissingError, python_of
from loadtest.server import ROOT, our_service
from tests.compat.run import CACHE, OFFLINE
from tests.compat.services import BUNDLE

REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = {
    "cohere": "haystack",
    "langchain_cohere": "langchain",
    "llama_index": "llama_index",
}
TOLERANCE = 0.1  # engines round differently


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("### From the client you have\n")[1].split("\n##")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """Send what is meant for localhost:8080 to a service on a free port, as to a proxy."""
    with our_service(BUNDLE) as server:
        proxy = {"http_proxy": server.url, "HTTP_PROXY": server.url}
        yield {**os.environ, **OFFLINE, **proxy, "no_proxy": "", "NO_PROXY": ""}


@pytest.mark.real_part
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split()[1])
def test_python_snippet_prints_what_it_says(code: str, environ: dict[str, str]) -> None:
    package = re.split(r"[ .\n]", code)[1]
    try:
        python = python_of(REQUIREMENTS / f"{ENVIRONMENTS[package]}.txt", CACHE)
    except EnvironmentMissingError as error:
        pytest.skip(f"{package} cannot be installed: {error}")
    done = subprocess.run([python, "-c", code], env=environ, capture_output=True, text=True)
    said = re.findall(r"^print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert done.stdout.splitlines() == said, done.stderr
    assert said


def test_all_promised_clients_have_a_snippet() -> None:
    assert [code.split()[1].partition(".")[0] for code in blocks("python")] == [*ENVIRONMENTS]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's command")
def test_curl_snippet_prints_what_it_says(environ: dict[str, str]) -> None:
    (block,) = blocks("console")
    command, _, said = block.removeprefix("$ ").partition("\n{\n")
    done = subprocess.run(command, shell=True, env=environ, capture_output=True, text=True)  # noqa: S602
    answer, expected = json.loads(done.stdout), json.loads("{" + said)
    assert [*answer] == [*expected]
    assert [r["index"] for r in answer["results"]] == [r["index"] for r in expected["results"]]
    for result, promised in zip(answer["results"], expected["results"], strict=True):
        assert result["relevance_score"] == pytest.approx(
            promised["relevance_score"], abs=TOLERANCE
        )
    rest = {"usage", "meta", "model"}
    assert {k: answer[k] for k in rest} == {k: expected[k] for k in rest}
