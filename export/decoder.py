"""Decoder teachers: what can be exported, and its fp32 graph."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.onnx import DATA, export_graph
from export.quiet import quiet
from service.contract.encoder import Ends

HEAD = "score"
"""What transformers' decoders call the linear head that they pool the last token for."""


def refuse_adapter(checkpoint: Path) -> None:
    """Raise ExportError for a folder that has an adapter instead of a model."""
    if (checkpoint / "adapter_config.json").exists():
        raise ExportError(
            f"{checkpoint} holds a LoRA adapter without its base: train with merge = true, or "
            f"merge the two with peft"
        )


def read_decoder(checkpoint: Path) -> tuple[Ends, int | None]:
    """Return the ends of a decoder's pairs, and its positions where their number is limited.

    Raises:
        ExportError: It is no decoder with one label that is pooled on its `</s>`.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        with quiet():
            config = AutoConfig.from_pretrained(checkpoint)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    except Exception as error:  # transformers, tokenizers and json share no base class
        raise ExportError(f"{checkpoint} is no checkpoint: {error}") from error
    _require_head(checkpoint, config)
    eos, pad = tokenizer.eos_token_id, config.pad_token_id
    if eos is None:
        raise ExportError(f"{checkpoint}: the tokenizer has no eos_token, and pairs end in it")
    if pad is None:
        raise ExportError(f"{checkpoint}: config.json has no pad_token_id, and rows are padded")
    if pad == eos:
        raise ExportError(
            f"{checkpoint}: pad_token_id {pad} is that of </s>, which would not be pooled"
        )
    positions = getattr(config, "max_position_embeddings", None)
    return Ends(bos=tokenizer.bos_token_id, eos=eos, pad=pad), positions


def export_decoder(checkpoint: Path, target: Path) -> None:
    """Write the checkpoint's graph to target and its weights to `DATA` beside it.

    Args:
        checkpoint: A folder that `read_decoder` accepts.
        target: The ONNX file to write; inputs input_ids and attention_mask, int64 [B, L], padded
            on the right, output logits, float32 [B, 1], of each row's last token but padding.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        model = onnx.load(export_graph(checkpoint, Path(scratch)))
    onnx.save_model(model, target, save_as_external_data=True, location=DATA)


def _require_head(checkpoint: Path, config: Any) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    if config.num_labels != 1:
        raise ExportError(f"{checkpoint}: the head has {config.num_labels} labels; a ranker has 1")
    try:
        with torch.device("meta"), quiet():
            model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ExportError(
            f"{checkpoint}: a {config.model_type} cannot classify sequences in transformers"
        ) from None
    if not isinstance(getattr(model, HEAD, None), torch.nn.Linear):
        raise ExportError(
            f"{checkpoint}: {type(model).__name__} has no head {HEAD!r}: it is no decoder that is "
            f"pooled on its last token"
        )
