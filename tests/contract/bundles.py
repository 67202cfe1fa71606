"""A small bundle to write, open and damage; no model in it can be run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.contract.bundle import GoldenQuery, write_bundle
from service.contract.manifest import EngineEntry, Manifest
from service.contract.template import TEMPLATE
from service.contract.types import Candidate

GOLDEN = (
    GoldenQuery(
        "ice", (Candidate("a", "Ice", "Frozen water."), Candidate(summary="Sand")), (2, -1)
    ),
    GoldenQuery("冰 🧊", (Candidate("c", "", "[SEP] x"),), (0.1,)),
)


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "tiny",
        "template": TEMPLATE,
        "max_length": 256,
        "max_query_length": 64,
        "inputs": ("input_ids", "attention_mask", "token_type_ids"),
        "output": "logits",
        "precisions": {
            "fp32": EngineEntry(file="model.onnx", tolerance=0.0001),
            "int8": EngineEntry(file="model.int8.onnx", tolerance=0.25),
        },
        "training": {"recipe": "tiny", "seed": 7, "sets": ["a", "b"]},
        "metrics": {"ndcg@10": 0.75},
    }
    return Manifest(**(fields | changes))


def sources(folder: Path) -> dict[str, Path]:
    """Write the files a bundle is made of, and return them by their name in the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: folder / name for name in ("tokenizer.json", "model.onnx", "model.int8.onnx")}
    for name, path in named.items():
        path.write_bytes(f"bytes of {name}\r\n".encode() + bytes(range(120, 140)))
    return named


def written(tmp_path: Path, **changes: Any) -> Path:
    """Write the bundle to tmp_path/models/tiny and return its directory."""
    target = tmp_path / "models" / "tiny"
    files = sources(tmp_path / "sources")
    return write_bundle(target, manifest(**changes), files, GOLDEN, overwrite=True).root


def read_fields(root: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    return fields


def fingerprint(fields: dict[str, Any]) -> str:
    """Return what `version` must be, from the written file alone."""
    rest = {key: value for key, value in fields.items() if key != "version"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def reseal(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and give it the version of its new content."""
    fields = read_fields(root)
    change(fields)
    fields["version"] = fingerprint(fields)
    (root / "manifest.json").write_text(json.dumps(fields), encoding="utf-8")


def swap_file(root: Path, name: str, content: bytes) -> None:
    """Give a file other bytes and the manifest the fingerprint of these."""
    (root / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    reseal(root, lambda fields: fields["files"].update({name: entry}))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every path under folder with its bytes, None for a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
