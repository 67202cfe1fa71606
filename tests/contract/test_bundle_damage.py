"""A damaged bundle is refused, with a message that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.contract.bundle import Bundle, BundleError
from tests.contract.bundles import read_fields, reseal, swap_file, written

FILES = ("manifest.json", "tokenizer.json", "model.onnx", "model.int8.onnx", "golden.jsonl")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "models" / "tiny")


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_seen(root: Path, name: str) -> None:
    intact = (root / name).read_bytes()
    for place in range(len(intact)):
        changed = bytearray(intact)
        changed[place] ^= 1
        (root / name).write_bytes(changed)
        with pytest.raises(BundleError, match=name):
            Bundle.open(root)
    (root / name).write_bytes(intact)
    Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_truncated_file_is_seen(root: Path, name: str, keep: int) -> None:
    intact = (root / name).read_bytes().rstrip()
    (root / name).write_bytes(intact[:keep])
    with pytest.raises(BundleError, match=name) as refusal:
        Bundle.open(root)
    if name != "manifest.json":
        assert f"has {len(intact[:keep])} bytes, the manifest says" in str(refusal.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_grew_is_seen(root: Path, name: str) -> None:
    with (root / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("instead", ["nothing", "a folder", "a link to itself", "a dead link"])
def test_a_missing_file_is_seen(root: Path, name: str, instead: str) -> None:
    path = root / name
    path.unlink()
    if instead == "a folder":
        path.mkdir()
    elif instead != "nothing":
        path.symlink_to(path.name if "itself" in instead else "absent")
    with pytest.raises(BundleError, match=name):
        Bundle.open(root)


@pytest.mark.parametrize("where", ["absent", "models", "models/tiny/model.onnx"])
def test_what_is_no_bundle_is_refused_by_name(root: Path, tmp_path: Path, where: str) -> None:
    with pytest.raises(BundleError, match=where):
        Bundle.open(tmp_path / where)


def test_two_files_swapped_are_seen(root: Path) -> None:
    (root / "model.onnx").rename(root / "aside")
    (root / "model.int8.onnx").rename(root / "model.onnx")
    (root / "aside").rename(root / "model.int8.onnx")
    with pytest.raises(BundleError, match=r"model\.(int8\.)?onnx"):
        Bundle.open(root)


@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_link_that_leads_out_is_refused_though_the_bytes_are_right(
    root: Path, tmp_path: Path, whole_folder: bool
) -> None:
    outside = tmp_path / "outside"
    if whole_folder:
        shutil.copytree(root, outside)
        (root / "sub").symlink_to(outside)
        entries = read_fields(root)["files"]
        reseal(root, lambda f: f["files"].update({"sub/model.onnx": entries["model.onnx"]}))
        name = "sub/model.onnx"
    else:
        (root / "model.onnx").rename(outside)
        (root / "model.onnx").symlink_to(outside)
        name = "model.onnx"
    with pytest.raises(BundleError, match=f"'{name}' leads out of the bundle"):
        Bundle.open(root)


def test_a_neighbour_whose_name_begins_like_the_bundles_is_outside(root: Path) -> None:
    outside = root.with_name(root.name + "-2")
    outside.mkdir()
    (root / "model.onnx").rename(outside / "model.onnx")
    (root / "model.onnx").symlink_to(outside / "model.onnx")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.open(root)


@pytest.mark.parametrize(
    "name", ["{root}/model.onnx", "/etc/hostname", "../tiny/model.onnx", "sub/../model.onnx", ".."]
)
def test_a_name_that_leads_out_is_refused_though_the_bytes_are_right(root: Path, name: str) -> None:
    (root / "sub").mkdir()
    name = name.format(root=root)
    entry = read_fields(root)["files"]["model.onnx"]
    reseal(root, lambda fields: fields["files"].update({name: entry}))
    with pytest.raises(BundleError, match="leads out of the bundle") as refusal:
        Bundle.open(root)
    assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["", ".", "a\x00b", "x" * 300, "sub/absent.onnx"])
def test_a_name_that_is_no_file_is_refused(root: Path, name: str) -> None:
    entry = read_fields(root)["files"]["model.onnx"]
    reseal(root, lambda fields: fields["files"].update({name: entry}))
    with pytest.raises(BundleError, match=r"is missing|cannot be read") as refusal:
        Bundle.open(root)
    assert repr(name) in str(refusal.value)


Change = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[Change, str]] = {
    "newer-schema": (lambda f: f.update(schema_version=3), "schema_version is 3"),
    "schema-as-text": (lambda f: f.update(schema_version="1"), "schema_version is '1'"),
    "no-schema": (lambda f: f.pop("schema_version"), "schema_version is None"),
    "template": (lambda f: f.update(template="t5-pair"), "template is 't5-pair'"),
    "no-template": (lambda f: f.pop("template"), "template: Field required"),
    "extra-key": (lambda f: f.update(comment="hi"), "comment: Extra inputs"),
    "extra-file-key": (
        lambda f: f["files"]["model.onnx"].update(mode=1),
        r"files\.model\.onnx\.mode: Extra inputs",
    ),
    "extra-score-key": (lambda f: f["score"].update(unit="logit"), r"score\.unit: Extra inputs"),
    "no-precision": (lambda f: f.update(precisions={}), "precisions: "),
    "unknown-precision": (
        lambda f: f["precisions"].update(int4=f["precisions"]["int8"]),
        r"precisions\.int4",
    ),
    "zero-tolerance": (lambda f: f["precisions"]["int8"].update(tolerance=0), "tolerance: "),
    "zero-scale": (lambda f: f["score"]["relevance"].update(scale=0), "scale: "),
    "no-tokenizer": (lambda f: f["files"].pop("tokenizer.json"), r"files lacks tokenizer\.json"),
    "no-golden": (lambda f: f["files"].pop("golden.jsonl"), r"files lacks golden\.jsonl"),
    "no-model": (lambda f: f["files"].pop("model.onnx"), r"files lacks model\.onnx"),
    "no-files": (lambda f: f.update(files={}), "files lacks golden"),
    "short-sha256": (lambda f: f["files"]["model.onnx"].update(sha256="ab"), "sha256: "),
    "negative-size": (lambda f: f["files"]["model.onnx"].update(size_bytes=-1), "size_bytes: "),
    "bad-name": (lambda f: f.update(name="../x"), "name: "),
    "no-length": (lambda f: f.update(max_length=0), "max_length: "),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_manifest_that_is_not_understood_is_refused_though_its_version_fits(
    root: Path, case: str
) -> None:
    change, message = EDITS[case]
    reseal(root, change)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{message}"):
        Bundle.open(root)


@pytest.mark.parametrize("version", ["", "0" * 64])
def test_an_edited_manifest_is_seen_by_its_version(root: Path, version: str) -> None:
    text = (root / "manifest.json").read_text(encoding="utf-8")
    sealed = read_fields(root)["version"]
    for edited in (text.replace("0.75", "0.76"), text.replace(sealed, version)):
        assert edited != text
        (root / "manifest.json").write_text(edited, encoding="utf-8")
        with pytest.raises(BundleError, match=r"manifest\.json: version is not the fingerprint"):
            Bundle.open(root)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ['"tolerance": 0.25', '"ndcg@10": 0.75', '"seed": 7'])
def test_a_number_json_does_not_know_is_refused(root: Path, place: str, number: str) -> None:
    text = (root / "manifest.json").read_text(encoding="utf-8")
    edited = text.replace(place, f"{place.split(':')[0]}: {number}")
    assert edited != text
    (root / "manifest.json").write_text(edited, encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json.*(cannot be read|finite number)"):
        Bundle.open(root)


NO_JSON = {
    "empty": b"",
    "deep-lists": b"[" * 100_000,
    "deep-objects": b'{"training":' * 100_000 + b"1" + b"}" * 100_000,
    "not-utf-8": b'{"schema_version": 1, "name": "\xff\xfe"}',
    "utf-16": '{"schema_version": 1}'.encode("utf-16"),
    "half-a-surrogate": b'{"schema_version": 1, "name": "\\ud800"}',
    "a-list": b"[]",
    "null": b"null",
    "long-number": b'{"schema_version": ' + b"1" * 10_000 + b"}",
    "two-values": b"{} {}",
}


@pytest.mark.parametrize("case", NO_JSON)
def test_a_manifest_that_is_no_json_object_is_refused(root: Path, case: str) -> None:
    (root / "manifest.json").write_bytes(NO_JSON[case])
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(root)


BAD_GOLDEN = {
    "empty": (b"", "no golden query"),
    "blank-line": (b"\n", ":1: not a golden query"),
    "no-json": (b"ice\n", ":1: not a golden query"),
    "not-utf-8": (b'{"query": "\xff", "candidates": [{}], "scores": [1]}', ":1: not a golden"),
    "deep": (b'{"query": ' + b"[" * 100_000, ":1: not a golden query"),
    "a-list": (b"[]", ":1: not a golden query"),
    "no-scores": (b'{"query": "q", "candidates": [{}]}', "scores: "),
    "no-candidates": (b'{"query": "q", "candidates": [], "scores": []}', "0 scores for 0"),
    "fewer-scores": (b'{"query": "q", "candidates": [{}, {}], "scores": [1]}', "1 scores for 2"),
    "more-scores": (b'{"query": "q", "candidates": [{}], "scores": [1, 2]}', "2 scores for 1"),
    "nan": (b'{"query": "q", "candidates": [{}], "scores": [NaN]}', r"scores\.0: .*finite"),
    "infinite": (b'{"query": "q", "candidates": [{}], "scores": [1e999]}', r"scores\.0: .*finite"),
    "no-number": (b'{"query": "q", "candidates": [{}], "scores": [null]}', r"scores\.0: "),
    "no-query": (b'{"query": 5, "candidates": [{}], "scores": [1]}', "query: "),
    "no-title": (b'{"query": "q", "candidates": [{"title": null}], "scores": [1]}', "title: "),
}


@pytest.mark.parametrize("case", BAD_GOLDEN)
def test_bad_golden_queries_are_refused_though_the_file_is_as_it_was_written(
    root: Path, case: str
) -> None:
    content, message = BAD_GOLDEN[case]
    swap_file(root, "golden.jsonl", content)
    with pytest.raises(BundleError, match=rf"golden\.jsonl.*{message}"):
        Bundle.open(root)


def test_a_bad_golden_query_is_named_by_its_line(root: Path) -> None:
    swap_file(root, "golden.jsonl", (root / "golden.jsonl").read_bytes() + b"{}\n")
    with pytest.raises(BundleError, match=r"golden\.jsonl:3: not a golden query"):
        Bundle.open(root)
