"""A decoder checkpoint's token ids, from its folder alone: neither torch nor transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from service.contract.checkpoint import read_card
from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.template import DECODER_TEMPLATE


def checkpoint_encoder(folder: Path) -> DecoderPairEncoder:
    """Return the encoder of a checkpoint of `training sft`; its weights need not be there.

    Raises:
        ValueError: The folder is no decoder's checkpoint, or its tokenizer has no `</s>`.
    """
    card = read_card(folder)
    if card.template != DECODER_TEMPLATE:
        raise ValueError(f"{folder} is no checkpoint of a decoder: its pairs are {card.template}")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        fields = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises no narrower class
        raise ValueError(f"{folder} holds no tokenizer: {error}") from error
    bos, eos = (_id_of(tokenizer, fields.get(name)) for name in ("bos_token", "eos_token"))
    if eos is None:
        raise ValueError(f"{folder}: the tokenizer has no end-of-sequence token to pool on")
    return DecoderPairEncoder(
        tokenizer,
        bos=bos,
        eos=eos,
        max_length=card.max_length,
        max_query_length=card.max_query_length,
    )


def _id_of(tokenizer: Tokenizer, token: Any) -> int | None:
    """Return the id of a token as transformers writes it: its text, or an object that has it."""
    text = token["content"] if isinstance(token, dict) else token
    found: int | None = None if text is None else tokenizer.token_to_id(text)
    return found
