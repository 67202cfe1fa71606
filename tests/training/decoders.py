"""A toy Mistral with a tokenizer trained on the spot, and a task that it learns in seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaTokenizerFast,
    MistralConfig,
    MistralForCausalLM,
)

from service.contract.types import Candidate, RankingExample
from tests.training.sets import write_corpus, write_tsv

NOUNS = ["cat", "dog", "kettle", "water", "capital", "river", "lamp", "stone"]
UNKNOWN = {"unk_token": "<unk>"}
ENDS = {"bos_token": "<s>", "eos_token": "</s>"}
FILLERS = ["the", "of", "and", "to", "in", "is", "a"]


def sentence(draw: random.Random, *words: str) -> str:
    return " ".join([draw.choice(FILLERS), *words, draw.choice(FILLERS)])


def trained_tokenizer() -> LlamaTokenizerFast:
    """Return a SentencePiece-like BPE tokenizer with `<s>`, `</s>` and no padding, as Mistral's."""
    draw = random.Random(0)
    text = [f"{sentence(draw, *draw.sample(NOUNS, 2))} : query:title" for _ in range(200)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, **UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = Metaspace(prepend_scheme="always", split=False)
    letters = [chr(code) for code in range(33, 127)]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *byte_tokens],
        initial_alphabet=letters,
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    state = json.loads(tokenizer.to_str())
    # Byte tokens are plain pieces of the vocabulary in a real one, not special.
    state["added_tokens"] = state["added_tokens"][:3]
    return LlamaTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **UNKNOWN,
        **ENDS,
    )


def tiny_mistral(
    folder: Path, *, tied: bool = False, layers: int = 2, positions: int = 256
) -> Path:
    """Write a small Mistral with random weights and its tokenizer."""
    tokenizer = trained_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.1,
        tie_word_embeddings=tied,
    )
    MistralForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    return folder


def scores_by_hand(checkpoint: Path, examples: Sequence[RankingExample]) -> list[list[float]]:
    """Return the raw logits of the candidates, a pair at a time, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).float().eval()

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def score(query: str, candidate: Candidate) -> float:
        texts = [text for text in (candidate.title, candidate.summary) if text.strip()]
        document = [part for text in texts for part in (*ids(":"), *ids(text))]
        pair = torch.tensor(
            [[tokenizer.bos_token_id, *ids(query), *document, tokenizer.eos_token_id]]
        )
        with torch.no_grad():
            logit: float = model(pair).logits.item()
        return logit

    return [
        [score(example.query, candidate) for candidate in example.candidates]
        for example in examples
    ]


def write_clicks(path: Path, rows: int, *, seed: int = 0) -> None:
    """Write clicks whose title and summary repeat the query's word."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        word = draw.choice(NOUNS)
        fields = {
            "query": sentence(draw, word, draw.choice(NOUNS)),
            "title": f"{word} {draw.choice(FILLERS)} {draw.choice(NOUNS)}",
            "summary": sentence(draw, word, draw.choice(FILLERS), word),
        }
        lines.append(json.dumps(fields) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def write_nouns_set(root: Path, *, queries: int = 32, nouns: Sequence[str] = NOUNS) -> None:
    """Write the set `nouns`: the relevant document of six repeats the query's word."""
    draw = random.Random(0)
    documents, texts, qrels, splits = {}, [], [], []
    for number in range(queries):
        query_id, word = f"q{number}", nouns[number % len(nouns)]
        texts.append((query_id, f"{word} {draw.choice(FILLERS)}"))
        splits.append((query_id, "val" if number % 5 == 0 else "train"))
        others = draw.sample([noun for noun in nouns if noun != word], 3)
        for place, found in enumerate(draw.sample([word, *others], 4)):
            name = f"{query_id}-{place}"
            documents[name] = (found, sentence(draw, found))
            qrels.append((query_id, name, int(found == word)))
    write_corpus(root / "nouns", documents)
    write_tsv(root / "nouns" / "queries.tsv", *texts)
    write_tsv(root / "nouns" / "qrels.tsv", *qrels)
    write_tsv(root / "nouns" / "splits.tsv", *splits)
