"""Small cross-encoders of other families than BERT's, with random weights and their tokenizers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DebertaV2TokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    MPNetTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from tests.tiny import WORDS, tiny_tokenizer

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_labels": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 128},
    "electra": {"max_position_embeddings": 128, "embedding_size": 64},
    "distilbert": {
        "max_position_embeddings": 128,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
    },
    "xlm-roberta": {"max_position_embeddings": 130, "pad_token_id": 1},
    "roberta": {"max_position_embeddings": 130, "pad_token_id": 1},
    "mpnet": {"max_position_embeddings": 130, "pad_token_id": 1},
    "modernbert": {
        "max_position_embeddings": 128,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
        "pad_token_id": 0,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "deberta-v2": {
        "max_position_embeddings": 128,
        "relative_attention": True,
        "position_buckets": 32,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "type_vocab_size": 0,
        "position_biased_input": False,
    },
}
XLM = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
BERT = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}


def tiny_encoder(folder: Path, kind: str, *, seed: int = 0, **config: Any) -> Path:
    """Write a cross-encoder of a family whose random scores differ widely; it has no card."""
    tokenizer = _tokenizer(folder, kind)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(tokenizer)} | SIZES | CONFIGS[kind] | config
    model = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(kind, **sizes)
    )
    with torch.no_grad():  # as in `tiny_checkpoint`
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
            if name in ("classifier.weight", "classifier.out_proj.weight"):
                parameter.mul_(1.0 if kind == "modernbert" else 20.0)
    model.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, kind: str) -> PreTrainedTokenizerBase:
    if kind in ("bert", "electra", "distilbert"):
        tokenizer = tiny_tokenizer(folder)
        if kind == "bert":
            return tokenizer
        family = ElectraTokenizerFast if kind == "electra" else DistilBertTokenizerFast
        return family(vocab_file=str(folder / "vocab.txt"), model_max_length=256)
    return MAKERS[kind]()


def _corpus() -> list[str]:
    draw = random.Random(0)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    return [" ".join([*draw.choices(WORDS, k=9), *draw.sample(letters, 9)]) for _ in range(300)]


def _unigram(special: list[str]) -> Tokenizer:
    """Return a SentencePiece-like Unigram tokenizer."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token=special[3], show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _xlm_roberta() -> PreTrainedTokenizerBase:
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return XLMRobertaTokenizerFast(tokenizer_object=tokenizer, **XLM)  # type: ignore[no-untyped-call]


def _roberta() -> PreTrainedTokenizerBase:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False
    )
    return RobertaTokenizerFast(tokenizer_object=tokenizer, **XLM)  # type: ignore[no-untyped-call]


def _mpnet() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0))
    return MPNetTokenizerFast(tokenizer_object=tokenizer, **XLM | {"unk_token": "[UNK]"})  # type: ignore[no-untyped-call]


def _modernbert() -> PreTrainedTokenizerBase:
    tokenizer = _byte_level(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **BERT
    )


def _deberta() -> PreTrainedTokenizerBase:
    tokenizer = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return DebertaV2TokenizerFast(tokenizer_object=tokenizer, **BERT)


MAKERS = {
    "xlm-roberta": _xlm_roberta,
    "roberta": _roberta,
    "mpnet": _mpnet,
    "modernbert": _modernbert,
    "deberta-v2": _deberta,
}
