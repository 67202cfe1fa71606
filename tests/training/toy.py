"""A task that a toy student learns in seconds: the relevant document repeats the query's word."""

from __future__ import annotations

import random
from pathlib import Path

from tests.tiny import WORDS, tiny_base
from tests.training.sets import write_corpus, write_tsv

TOPICS = WORDS[-6:]

RECIPE = """
name = "toy"
seed = 3
epochs = {epochs}
group_size = 6
groups_per_step = 8
rows_per_call = 48
evaluate_every = {evaluate_every}
save_every = {save_every}

[student]
base = "{base}"
max_length = 16
max_query_length = 4

[optimiser]
learning_rate = {learning_rate}

[[train]]
teacher = "grades"
source = {{ kind = "judged", path = "toy", split = "train" }}

[[validation]]
path = "toy"
split = "val"
"""


def write_toy_set(root: Path, *, queries: int = 32) -> None:
    """Write the set `toy`: each query a word, one document that repeats it, five that do not."""
    draw = random.Random(0)
    documents, texts, qrels, splits = {}, [], [], []
    for number in range(queries):
        query_id, word = f"q{number}", TOPICS[number % len(TOPICS)]
        texts.append((query_id, word))
        splits.append((query_id, "val" if number % 4 == 0 else "train"))
        for place, other in enumerate(draw.sample(TOPICS, len(TOPICS))):
            name = f"{query_id}-{place}"
            documents[name] = f"{draw.choice(WORDS[:6])} {other}"
            qrels.append((query_id, name, int(other == word)))
    write_corpus(root / "toy", documents)
    write_tsv(root / "toy" / "queries.tsv", *texts)
    write_tsv(root / "toy" / "qrels.tsv", *qrels)
    write_tsv(root / "toy" / "splits.tsv", *splits)


def write_recipe(
    folder: Path,
    *,
    epochs: int = 10,
    evaluate_every: int = 10,
    save_every: int = 4,
    learning_rate: float = 3e-3,
) -> Path:
    """Write the toy base and a recipe that teaches it, and return the recipe's path."""
    base = folder / "base"
    if not base.exists():
        tiny_base(base)
    path = folder / "recipe.toml"
    path.write_text(
        RECIPE.format(
            base=base,
            epochs=epochs,
            evaluate_every=evaluate_every,
            save_every=save_every,
            learning_rate=learning_rate,
        ),
        encoding="utf-8",
    )
    return path
