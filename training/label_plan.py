"""What is to be labelled: the sources cut into shards, and which of these are still to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from tqdm import tqdm

from service.contract.types import RankingExample
from training.hashing import model_digest, sha256_of
from training.prompting.recipe import PromptingRecipe
from training.recipe import LabelRecipe, RecipeError, load_recipe
from training.shards import Inputs, cut, facts_of, shard_path, write_json

PLAN = "plan.json"

Sources = tuple[Iterable[RankingExample], ...]
"""Each can be gone through again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be labelled.

    Attributes:
        recipe: Hash of the recipe, and of the teacher's files where it has some.
        digests: Of each shard's inputs.
        sizes: Each shard's examples.
    """

    recipe: str
    digests: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, recipe: LabelRecipe, sources: Sources) -> Plan:
        """Return the plan, having read all sources once.

        Raises:
            RecipeError: A source or the teacher's file cannot be read.
        """
        digests, sizes = [], []
        with tqdm(desc="reading", unit="query", leave=False) as bar:
            for inputs in cut(chain.from_iterable(sources), recipe.queries_per_shard):
                digests.append(inputs.digest)
                sizes.append(len(inputs.examples))
                bar.update(sizes[-1])
        return cls(_recipe_hash(recipe), tuple(digests), tuple(sizes))

    @property
    def fingerprint(self) -> str:
        """Return a hash of the recipe and of all that is labelled."""
        return hashlib.sha256("".join([self.recipe, *self.digests]).encode()).hexdigest()

    def check(self, folder: Path) -> None:
        """Refuse a folder that is being filled with other labels.

        Raises:
            RecipeError: The folder, or a shard of it, is of another recipe, teacher or data.
        """
        plan = folder / PLAN
        found = json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else None
        if found is not None and found["fingerprint"] != self.fingerprint:
            raise RecipeError(
                f"{folder} holds labels of another recipe, teacher or other data; "
                "give the recipe a new name, or start over with --restart"
            )
        for number, digest in enumerate(self.digests):
            path = shard_path(folder, number)
            if path.exists() and facts_of(path).inputs != digest:
                raise RecipeError(f"{path} was made from other data; remove it")

    def write(self, folder: Path) -> None:
        """Write down what the folder is being filled with, where nothing is yet."""
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / PLAN).exists():
            write_json(folder / PLAN, {"fingerprint": self.fingerprint})

    def missing(self, folder: Path) -> list[int]:
        """Return the numbers of the shards that are not there."""
        return [n for n in range(len(self.digests)) if not shard_path(folder, n).exists()]

    def inputs(self, sources: Sources, todo: Container[int]) -> Iterator[Inputs]:
        """Yield the inputs of the shards to do, reading the sources again.

        Raises:
            RecipeError: They hold something else now.
        """
        found = cut(chain.from_iterable(sources), max(self.sizes, default=1))
        for digest, inputs in zip_longest(self.digests, found):
            if inputs is None or inputs.digest != digest:
                raise RecipeError("the data changed while it was being labelled")
            if inputs.number in todo:
                yield inputs


def _recipe_hash(recipe: LabelRecipe) -> str:
    digest = hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    if recipe.teacher_kind in ("scores", "rankings"):
        try:
            digest.update(bytes.fromhex(sha256_of(Path(recipe.teacher))))
        except OSError as error:
            raise RecipeError(f"{recipe.teacher}: {error.strerror}") from None
    elif recipe.teacher_kind == "prompted":
        digest.update(load_recipe(Path(recipe.teacher), PromptingRecipe).digest())
    elif recipe.teacher_kind != "remote":
        digest.update(model_digest(recipe.teacher))
    return digest.hexdigest()
