"""Labelling on a Ray cluster: shards stream from this machine through a pool of teachers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import LabelRecipe, RecipeError
from training.shards import Inputs, encode_shard
from training.teacher import teacher_of

OBJECT_STORE_BYTES = 2**28
"""Of a cluster that is started here; a few shards at a time are under way."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pool:
    """Who scores.

    Attributes:
        address: A cluster that this machine belongs to; None: one is started here and ended.
        actors: Teachers; None: one a GPU, or one a core where there is none.
        gpus_per_actor: At most 1, of which a share lets several teachers have a GPU together;
            None: 1 where the cluster has any.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None


def score_on_ray(
    recipe: LabelRecipe, shards: Callable[[], Iterator[Inputs]], pool: Pool
) -> Generator[tuple[int, bytes]]:
    """Yield each shard's number and file, in the order in which they are done.

    The shards' inputs are read in one task on this machine, as fast as the teachers take them, and
    the files come back to it: the others need the teacher, not the data.

    Args:
        recipe: Names the teacher, which each actor loads.
        shards: Yields what is to be scored.
        pool: Who scores.

    Raises:
        RecipeError: Ray is missing, a source or the teacher fails, or a score is not finite.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError:
        raise RecipeError("ray is not installed; it comes with the [ray] extra") from None
    _start(ray, pool.address)
    try:
        yield from _rows(ray, recipe, shards, pool)
    except RayError as error:
        raise RecipeError(f"Ray: {error}") from None
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            raise RecipeError(f"no Ray cluster at {address}: {error}") from None
        return
    ray.init(
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        **quiet,
    )


def _rows(
    ray: Any, recipe: LabelRecipe, shards: Callable[[], Iterator[Inputs]], pool: Pool
) -> Iterator[tuple[int, bytes]]:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # a shard a block, so that the first is not waited for
    gpus = ray.cluster_resources().get("GPU", 0)
    share = pool.gpus_per_actor if pool.gpus_per_actor is not None else min(gpus, 1)
    slots = gpus // share if share else ray.cluster_resources()["CPU"]
    if slots < 1:
        raise RecipeError(f"an actor needs {share:g} GPU, and the cluster has {gpus:g}")
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    scored = (
        ray.data.from_items([0], override_num_blocks=1)
        .map_batches(Reader(shards, Path.cwd()), num_cpus=0, label_selector=here)
        .map_batches(
            Scorer,
            fn_constructor_args=(_absolute(recipe),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=pool.actors or int(slots)),
            num_cpus=1,
            num_gpus=share,
        )
    )
    for row in scored.iter_rows():
        if row["problem"]:
            raise RecipeError(row["problem"])
        yield int(row["number"]), row["content"]


class Reader:
    """Yields the inputs of shards, a row each.

    Problems are rows, too: what a worker raises comes back as Ray's error, ours in its text.
    """

    def __init__(self, shards: Callable[[], Iterator[Inputs]], cwd: Path) -> None:
        self._shards = shards
        self._cwd = cwd

    def __call__(self, _: Row) -> Iterator[Row]:
        """Yield rows with one column, `inputs`: a shard's, or a problem as a text."""
        os.chdir(self._cwd)  # paths of a recipe are relative to it
        try:
            for inputs in self._shards():
                yield {"inputs": [inputs]}
        except RecipeError as error:
            yield {"inputs": [str(error)]}


class Scorer:
    """Scores a shard a call."""

    def __init__(self, recipe: LabelRecipe) -> None:
        self._problem = ""
        try:
            self._teacher = teacher_of(recipe)
        except RecipeError as error:  # Ray would start an actor that fails to start for ever
            self._problem = str(error)

    def __call__(self, batch: Row) -> Row:
        """Return the shard's `number` and `content`, or a `problem`."""
        inputs: Inputs | str = batch["inputs"][0]
        number, content, problem = -1, b"", self._problem
        if isinstance(inputs, str):
            problem = inputs
        elif not problem:
            try:
                content = encode_shard(inputs, self._teacher.score(inputs.examples))
                number = inputs.number
            except RecipeError as error:
                problem = str(error)
        return {"number": [number], "content": [content], "problem": [problem]}


def _absolute(recipe: LabelRecipe) -> LabelRecipe:
    """Return the recipe for an actor, which has another working directory."""
    teacher, remote = Path(recipe.teacher), recipe.remote
    changes: dict[str, Any] = {}
    if teacher.exists():
        changes["teacher"] = str(teacher.absolute())
    if remote is not None and remote.tokenizer is not None:
        tokenizer = remote.tokenizer.absolute()
        changes["remote"] = remote.model_copy(update={"tokenizer": tokenizer})
    return recipe.model_copy(update=changes)
