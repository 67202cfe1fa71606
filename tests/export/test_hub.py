"""Models by their name, downloaded by huggingface_hub itself from a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.__main__ import main
from export.errors import ExportError
from export.hub import find_model
from service.contract.bundle import Bundle
from service.contract.manifest import Source
from tests.encoders import tiny_encoder
from tests.export.hub_server import COMMIT, serving_hub
from tests.export.test_refusals import rewrite

NAME = "them/theirs"
CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# Theirs\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model beside files that nobody needs."""
    folder = tiny_encoder(tmp_path_factory.mktemp("hub") / "theirs", "electra")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    for name in ("pytorch_model.bin", "model.onnx", "tf_model.h5", "training_args.bin"):
        (folder / name).write_bytes(b"not to be downloaded")
    rewrite(
        folder / "config.json",
        sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"},
    )
    return folder


def command(
    home: Path, *arguments: str, endpoint: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m export from-hub` against a hub, which is chosen when the library loads."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)} | variables
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-m", "export", "from-hub", *arguments],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_model_of_the_hub_becomes_a_bundle(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with serving_hub(NAME, model) as hub:
        arguments = [NAME, str(target), "--revision", "v1", "--precision", "fp32"]
        done = command(tmp_path, *arguments, endpoint=hub.url, HF_TOKEN="hf_ours")  # noqa: S106
    assert done.returncode == 0, done.stderr
    source = Source(name=NAME, revision=COMMIT, licence="apache-2.0", activation="Sigmoid")
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["source"] == source.model_dump()
    assert (report["name"], report["precisions"]) == ("bundle", ["fp32"])
    assert Bundle.open(target).manifest.source == source
    assert hub.tokens == {"Bearer hf_ours"}
    assert sorted(hub.downloads) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["them/absent"], "them/absent is not on the hub"),
        ([NAME, "--revision", "v2"], "them/theirs has no revision 'v2'"),
        (["not/a/name"], "not/a/name is neither a folder nor a name on the hub"),
    ],
    ids=["name", "revision", "path"],
)
def test_what_the_hub_does_not_have_is_refused(
    arguments: list[str], message: str, model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "bundle"
    with serving_hub(NAME, model) as hub:
        done = command(tmp_path, *arguments, str(target), endpoint=hub.url)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")
    assert not target.parent.exists()
    assert hub.downloads == []


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path) -> None:
    target = tmp_path / "out" / "bundle"
    done = command(tmp_path, NAME, str(target), endpoint="http://127.0.0.1:9")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: them/theirs is no folder, and the hub cannot be reached"
    )
    assert "Traceback" not in done.stderr
    assert not target.parent.exists()


def test_offline_a_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["from-hub", NAME, str(tmp_path / "bundle")]) == 2
    assert "is no folder, and the hub cannot be reached" in capsys.readouterr().err


def test_pickled_weights_are_downloaded_where_there_are_no_others(
    model: Path, tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "pytorch_model.bin", "tf_model.h5"):
        (pickled / name).write_bytes((model / name).read_bytes())
    with serving_hub(NAME, pickled) as hub:
        done = command(tmp_path, NAME, str(tmp_path / "bundle"), endpoint=hub.url)
    assert sorted(hub.downloads) == ["config.json", "pytorch_model.bin"]
    assert done.returncode == 2  # there is no tokenizer
    assert "its tokenizer cannot be loaded" in done.stderr


def test_a_folder_is_named_by_its_name(model: Path) -> None:
    folder, source = find_model(str(model))
    assert folder == model
    assert source == Source(name="theirs", licence="apache-2.0", activation="Sigmoid")
    with pytest.raises(ExportError, match="is a folder; a revision is of a model on the hub"):
        find_model(str(model), "v1")


@pytest.mark.parametrize("card", [None, "# Theirs\n", "---\nlicense: [\n---\n", "---\n- a\n---\n"])
def test_a_card_that_tells_nothing_is_no_error(card: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    _, source = find_model(str(tmp_path))
    assert (source.licence, source.activation) == (None, None)


def test_the_older_name_of_the_activation_is_read(tmp_path: Path) -> None:
    told = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    _, source = find_model(str(tmp_path))
    assert source.activation == "Identity"


def test_an_existing_bundle_is_told_before_the_download(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    with serving_hub(NAME, model) as hub:
        done = command(tmp_path, NAME, str(target), endpoint=hub.url)
    assert done.returncode == 2
    assert "exists; --overwrite replaces it" in done.stderr
    assert hub.downloads == []
