"""Toy tokenizers, checkpoints and bundles: real formats, random weights, seconds to make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
)

from export.bundle import export_bundle
from export.parity import GATES, Gates
from service.contract.checkpoint import CARD, Card
from service.contract.manifest import Precision
from service.contract.template import DECODER_TEMPLATE
from tests.training.decoders import trained_tokenizer

LETTERS = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
TOY_GATES = {**GATES, "int8": Gates()}  # random weights score nearly alike: int8 reorders them
WORDS = ["the", "of", "and", "to", "in", "is", "cat", "dog", "kettle", "water", "boil", "capital"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer(folder: Path) -> BertTokenizerFast:
    """Write and return a lower-casing WordPiece tokenizer that spells unknown words out."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*SPECIALS, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=256)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    return tokenizer


def tiny_checkpoint(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """Write a checkpoint of a randomly initialised small BERT whose scores differ widely."""
    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(seed)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=256,
        num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )
    model = BertForSequenceClassification(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():  # BERT's initialisation, 0.02 wide, would score all pairs alike
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
        model.classifier.weight.mul_(50.0)
    model.save_pretrained(folder)
    (folder / CARD).write_text(Card().model_dump_json(), encoding="utf-8")
    return folder


def tiny_base(folder: Path, *, layers: int = 2, hidden: int = 64, heads: int = 2) -> Path:
    """Write a small BERT as BERT is initialised: a student that can be taught."""
    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def tiny_teacher(folder: Path, *, kind: str = "mistral", seed: int = 0, **config: Any) -> Path:
    """Write a small decoder as `training sft` does, whose random scores differ widely."""
    tokenizer = trained_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "num_labels": 1,
    }
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(kind, **(sizes | ends | config))
    )
    with torch.no_grad():  # as in `tiny_checkpoint`
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    card = Card(template=DECODER_TEMPLATE, max_length=64, max_query_length=12)
    (folder / CARD).write_text(card.model_dump_json(), encoding="utf-8")
    return folder


def tiny_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    seed: int = 0,
    precisions: tuple[Precision, ...] = ("fp32", "int8"),
) -> Path:
    """Write a bundle of a tiny checkpoint, made by the export the product uses."""
    checkpoint = tiny_checkpoint(folder.parent / f"{folder.name}-checkpoint", seed=seed)
    export_bundle(checkpoint, folder, name=name, precisions=precisions, gates=TOY_GATES)
    return folder
