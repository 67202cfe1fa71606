"""A language model from scratch: random weights and a byte-level BPE of the text at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from service.contract.folder import replaced_folder, restore_folder
from training.clicks import open_clicks
from training.recipe import RecipeError
from training.teacher_recipes import ScratchRecipe

BOS, EOS = "<s>", "</s>"
REPORT = "scratch.json"


def scratch(recipe: ScratchRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Write a Mistral-architecture language model that knows nothing, and return its folder.

    It is for `training cpt` where no pretrained model can be had. The same recipe, data and seed
    make the same bytes; a finished one is left as it is.

    Args:
        recipe: Sizes, and the texts that the tokenizer is trained on.
        data: Folder of the files or judged sets the recipe names.
        out: Folder of runs; the model goes to `out/<recipe name>`.
        restart: Make a finished one anew.

    Raises:
        RecipeError: A text cannot be read, or another recipe's model is there.
    """
    folder = out / recipe.name
    restore_folder(folder)
    facts = {"recipe": recipe.model_dump(mode="json")}
    if folder.exists() and not restart:
        if _made_by(folder) != facts:
            raise RecipeError(
                f"{folder} holds a model of another recipe; "
                "give the recipe a new name, or start over with --restart"
            )
        return folder
    tokenizer = train_tokenizer(_texts(recipe, data), vocabulary=recipe.vocabulary)
    torch.manual_seed(recipe.seed)
    config = MistralConfig(  # type: ignore[no-untyped-call]
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,  # gated: as many weights as 4.5 without a gate
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=recipe.positions,
        sliding_window=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,  # most weights of a small model are its embeddings
    )
    model = MistralForCausalLM(config)  # type: ignore[no-untyped-call]
    with replaced_folder(folder) as aside:
        model.save_pretrained(aside, safe_serialization=True)
        tokenizer.save_pretrained(aside)
        (aside / REPORT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def train_tokenizer(texts: Iterator[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with `<s>` and `</s>`; every text has tokens, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, add_prefix_space=True
    )


def _texts(recipe: ScratchRecipe, data: Path) -> Iterator[str]:
    for source in recipe.texts:
        for shard in open_clicks(source, data):
            for click in shard.rows(0):
                yield from (click.query, click.document.title, click.document.summary)


def _made_by(folder: Path) -> object:
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
