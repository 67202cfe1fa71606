"""A bundle: a directory with one served model, its manifest and the proof that it is intact."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import from_json

from service.contract.encoder import Encoder
from service.contract.errors import first_error
from service.contract.folder import replaced_folder, restore_folder
from service.contract.manifest import SCHEMA_VERSION, EngineEntry, FileEntry, Manifest, Precision
from service.contract.template import require_known
from service.contract.types import Candidate

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.jsonl"


class BundleError(Exception):
    """A bundle that cannot be opened or written; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query whose fp32 torch scores are known, one a candidate."""

    query: str
    candidates: tuple[Candidate, ...]
    scores: tuple[FiniteFloat, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle, every file of it checked against the manifest."""

    root: Path
    manifest: Manifest
    golden: tuple[GoldenQuery, ...]

    @classmethod
    def open(cls, root: Path) -> Bundle:
        """Open the bundle at root and check every byte of it.

        Raises:
            BundleError: No such bundle; an unknown schema or template; a missing or changed
                file; or a file name that leads out of the bundle.
        """
        manifest = _read_manifest(root)
        for name, entry in manifest.files.items():
            try:
                _check_file(root, name, entry)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
                raise BundleError(f"{root}: file {name!r} cannot be read: {error}") from None
        return cls(root, manifest, _read_golden(root / GOLDEN))

    @property
    def short_version(self) -> str:
        """The first twelve digits of the version, for people and metric labels."""
        return self.manifest.version[:12]

    def model_path(self, precision: Precision) -> Path:
        """Return the ONNX file of a precision.

        Raises:
            BundleError: The bundle does not offer it.
        """
        return self.root / self._entry(precision).file

    def weights_path(self, precision: Precision) -> Path | None:
        """Return the weights' file of a precision, None where its ONNX file holds them.

        Raises:
            BundleError: The bundle does not offer the precision.
        """
        name = self._entry(precision).weights
        return None if name is None else self.root / name

    def _entry(self, precision: Precision) -> EngineEntry:
        entry = self.manifest.precisions.get(precision)
        if entry is None:
            offered = ", ".join(self.manifest.precisions)
            raise BundleError(f"{self.root}: no {precision} model; it offers {offered}")
        return entry

    def encoder(self) -> Encoder:
        """Return the bundle's own encoder.

        Raises:
            BundleError: Its tokenizer is none for its template, or its lengths leave no room.
        """
        try:
            return self.manifest.encoder(self.root / TOKENIZER)
        except ValueError as error:
            raise BundleError(f"{self.root}: no encoder for {TOKENIZER}: {error}") from None


def write_bundle(
    target: Path,
    manifest: Manifest,
    files: Mapping[str, Path],
    golden: Sequence[GoldenQuery],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle beside target, check it, and rename it into place.

    A writer killed between the two renames of an overwrite leaves the old bundle at `.{name}.old`;
    the next write brings it back first.

    Args:
        target: The bundle's directory; its parent is made where it is missing.
        manifest: All but `files` and `version`, which are filled in here.
        files: Name in the bundle to source file: the tokenizer and the models, at least.
        golden: Pairs for the start-up check, at least one.
        overwrite: Replace an existing target.

    Returns:
        The opened bundle.

    Raises:
        BundleError: The target exists, the parts do not fit, or the written bundle does not open.
        OSError: The disk refused; target is as it was.
    """
    restore_folder(target)
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists; overwriting it has to be asked for")
    if not golden:
        raise BundleError(f"{target}: a bundle needs golden pairs, got none")
    with replaced_folder(target) as scratch:
        for name, source in files.items():
            shutil.copyfile(source, _locate(scratch, name))
        lines = [json.dumps(asdict(query), ensure_ascii=False) for query in golden]
        (scratch / GOLDEN).write_text("\n".join(lines) + "\n", encoding="utf-8")
        entries = {name: _entry(scratch / name) for name in sorted([*files, GOLDEN])}
        whole = manifest.model_copy(update={"files": entries})
        whole = whole.model_copy(update={"version": whole.fingerprint()})
        (scratch / MANIFEST).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
        Bundle.open(scratch)
    return Bundle.open(target)


def _read_manifest(root: Path) -> Manifest:
    try:
        fields = from_json((root / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{root} is no bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{root / MANIFEST} cannot be read: {error}") from None
    schema = fields.get("schema_version") if isinstance(fields, dict) else None
    if schema != SCHEMA_VERSION:
        raise BundleError(
            f"{root / MANIFEST}: schema_version is {schema!r}; this program reads {SCHEMA_VERSION}"
        )
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise BundleError(f"{root / MANIFEST}: {first_error(error)}") from None
    if manifest.version != manifest.fingerprint():
        raise BundleError(
            f"{root / MANIFEST}: version is not the fingerprint of its content; it was changed"
        )
    try:
        require_known(manifest.template)
    except ValueError as error:
        raise BundleError(f"{root / MANIFEST}: {error}") from None
    models = [name for entry in manifest.precisions.values() for name in entry.files]
    needed = {TOKENIZER, GOLDEN, *models}
    if missing := sorted(needed - manifest.files.keys()):
        raise BundleError(f"{root / MANIFEST}: files lacks {', '.join(missing)}")
    return manifest


def _locate(root: Path, name: str) -> Path:
    """Return the path of a file of the bundle, refusing one that leads out of it."""
    pure = PurePosixPath(name)
    path = root / name
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or not path.resolve().is_relative_to(root.resolve())
    ):
        raise BundleError(f"{root}: file {name!r} leads out of the bundle")
    return path


def _check_file(root: Path, name: str, entry: FileEntry) -> None:
    path = _locate(root, name)
    if not path.is_file():
        raise BundleError(f"{root}: file {name!r} is missing")
    found = _entry(path)
    if found.size_bytes != entry.size_bytes:
        raise BundleError(
            f"{root}: file {name!r} has {found.size_bytes} bytes, the manifest says "
            f"{entry.size_bytes}"
        )
    if found.sha256 != entry.sha256:
        raise BundleError(f"{root}: file {name!r} was changed: its sha256 is {found.sha256}")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(sha256=digest, size_bytes=path.stat().st_size)


def _read_golden(path: Path) -> tuple[GoldenQuery, ...]:
    reader = TypeAdapter(GoldenQuery)
    queries = []
    # Bytes split at line feeds alone; text would split at U+2028 and its like inside a document.
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            query = reader.validate_json(line)
        except ValidationError as error:
            raise BundleError(
                f"{path}:{number}: not a golden query: {first_error(error)}"
            ) from None
        if len(query.scores) != len(query.candidates) or not query.candidates:
            raise BundleError(
                f"{path}:{number}: {len(query.scores)} scores for "
                f"{len(query.candidates)} candidates"
            )
        queries.append(query)
    if not queries:
        raise BundleError(f"{path}: no golden query")
    return tuple(queries)
