"""Somebody else's model, by its name on the Hugging Face hub or its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.errors import ExportError
from service.contract.manifest import Source

TEXTS = (
    "README.md",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
)
SAFETENSORS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
"""For models that have no other weights; torch reads tensors alone of them, and runs nothing."""


def find_model(name: str, revision: str | None = None) -> tuple[Path, Source]:
    """Return a model's folder, downloaded where it is on the hub, and what is known of its origin.

    The download is huggingface_hub's: kept in its cache, with `HF_TOKEN`, `HF_ENDPOINT` and its
    other variables.

    Args:
        name: A folder, else a name on the hub.
        revision: Commit, tag or branch on the hub; by default its main branch.

    Raises:
        ExportError: There is no such model, or the hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ExportError(f"{name} is a folder; a revision is of a model on the hub")
        return folder, _source(folder, folder.resolve().name, None)
    folder = _download(name, revision, (*TEXTS, *SAFETENSORS))
    if not any(folder.glob("*.safetensors")):
        folder = _download(name, folder.name, PICKLES)
    return folder, _source(folder, name, folder.name)


def _download(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """Return the folder of a snapshot, whose name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*files]))
    except HFValidationError:
        reason = "is neither a folder nor a name on the hub"
    except GatedRepoError:
        reason = "asks for its terms to be accepted on the hub, and for HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "is not on the hub, or is private and asks for HF_TOKEN; nor is it a folder"
    except RevisionNotFoundError:
        reason = f"has no revision {revision!r}"
    except LocalEntryNotFoundError:
        reason = (
            "is no folder, and the hub cannot be reached; a folder downloaded elsewhere will do"
        )
    except (HfHubHTTPError, OSError) as error:
        reason = f"cannot be downloaded: {str(error).splitlines()[0]}"
    raise ExportError(f"{name} {reason}")


def _source(folder: Path, name: str, revision: str | None) -> Source:
    return Source(
        name=name,
        revision=revision,
        licence=_licence(folder / "README.md"),
        activation=_activation(folder / "config.json"),
    )


def _licence(card: Path) -> str | None:
    from huggingface_hub import metadata_load

    try:
        found = (metadata_load(card) or {}).get("license")
    except Exception:  # no card, or YAML that is none: nothing is known
        return None
    licences = found if isinstance(found, list) else [found]
    return ", ".join(map(str, licences)) if found else None


def _activation(config: Path) -> str | None:
    """Return the function that sentence-transformers applies to a logit, by its short name."""
    try:
        fields: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        told = fields.get("sentence_transformers", {}).get("activation_fn")
    except (OSError, ValueError, AttributeError):  # for who reads the architecture to say
        return None
    told = told or fields.get("sbert_ce_default_activation_function")
    return str(told).rpartition(".")[2] if told else None
