"""Decoder teachers: what can be exported, its fp32 graph, and a check of padded rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.onnx import quiet
from service.contract.encoder import Ends
from service.contract.encoding import TokenPair
from service.contract.types import Float32s
from service.scorers.onnx import DECODER_INPUTS, OUTPUT, open_session

DATA = "model.onnx.data"
"""The weights, beside the graph: an ONNX file ends at 2 GB, half a billion of them."""

HEAD = "score"
"""What transformers' decoders call the linear head that they pool the last token for."""

ROWS = 8
"""Pairs a call of the check of padded rows."""


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
    from optimum.exporters.onnx import main_export

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, quiet():
        main_export(
            str(checkpoint),
            output=scratch,
            task="text-classification",
            framework="pt",
            dtype="fp32",
            do_validation=False,  # parity.py compares on real pairs instead
            no_post_process=True,
        )
        onnx.save_model(
            onnx.load(Path(scratch) / "model.onnx"),
            target,
            save_as_external_data=True,
            location=DATA,
        )


class PaddedScorer:
    """Scores pairs several a call, padded on the right to the longest of the call.

    The service does not pad; whoever serves the bundle on a GPU does, and gets the same scores.
    """

    def __init__(self, model: Path, *, pad: int) -> None:
        """Load a decoder's ONNX file; rows are padded with the id `pad`."""
        self._session = open_session(model)
        self._pad = pad

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n]."""
        calls = [pairs[start : start + ROWS] for start in range(0, len(pairs), ROWS)]
        return np.concatenate([self._call(call) for call in calls])

    def _call(self, pairs: Sequence[TokenPair]) -> Float32s:
        shape = len(pairs), max(map(len, pairs))
        ids, mask = np.full(shape, self._pad), np.zeros(shape, dtype=np.int64)  # [B, L]
        for row, pair in enumerate(pairs):
            ids[row, : len(pair)], mask[row, : len(pair)] = pair.input_ids, 1
        feeds = dict(zip(DECODER_INPUTS, (ids, mask), strict=True))
        logits: Float32s = self._session.run([OUTPUT], feeds)[0]  # [B, 1]
        return logits[:, 0]


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
