"""How fast labelling and distilling are beside a bare loop on the same batches, in turns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from training.data import open_source
from training.distill import step_parts
from training.label import score_shards
from training.latency import median, seconds
from training.loop import ByStep, Part, start_accelerator, train
from training.recipe import DistillRecipe, LabelRecipe, RecipeError
from training.shards import cut, shard_path, write_whole
from training.student import build_student, pair_encoder
from training.taught import Lessons, read_taught
from training.teacher import teacher_of

WARM_UP = 2


@dataclass(slots=True)
class Calls:
    """What a model was called with.

    Attributes:
        inputs: Keyword arguments, a call each.
        tokens: Of all calls, without padding.
        padded: The same with it.
    """

    inputs: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    padded: int = 0

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Add the calls of a model meanwhile."""
        handle = model.register_forward_pre_hook(self._add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, _model: nn.Module, _args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        self.inputs.append(inputs)
        self.tokens += int(inputs["attention_mask"].sum())
        self.padded += inputs["attention_mask"].numel()


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of every round, ours and the bare loop's, and the tokens of them all."""

    ours_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    tokens: int
    padded: int

    def __str__(self) -> str:
        ratio = median(np.divide(self.bare_s, self.ours_s))
        return (
            f"{ratio.value:.1%} of the bare loop's speed [{ratio.low:.1%}, {ratio.high:.1%}], "
            f"{len(self.ours_s)} rounds in turns; padding {1 - self.tokens / self.padded:.1%} of "
            f"{self.padded:,} tokens; {self.tokens / sum(self.ours_s):,.0f} tokens/s without it"
        )


def label_speed(recipe: LabelRecipe, *, data: Path, shards: int, rounds: int) -> Speed:
    """Return the speed of labelling a recipe's first shards: read, tokenised, scored, written.

    The bare loop calls the model with the very batches that labelling called it with.

    Raises:
        RecipeError: A source or the teacher cannot be used, or the teacher is no model here.
    """
    sources = tuple(open_source(source, data) for source in recipe.sources)
    teacher = teacher_of(recipe)
    model = getattr(teacher, "model", None)
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{recipe.name}: the teacher is no model of this process")
    calls = Calls()
    with TemporaryDirectory() as folder:

        def ours() -> None:
            inputs = islice(cut(chain.from_iterable(sources), recipe.queries_per_shard), shards)
            for number, content in score_shards(teacher, inputs):
                write_whole(shard_path(Path(folder), number), content)

        def bare() -> None:
            with torch.inference_mode():
                for inputs in calls.inputs:
                    model(**inputs)

        with calls.of(model):
            ours()
        device = next(model.parameters()).device
        times = [(seconds(ours, device), seconds(bare, device)) for _ in range(rounds)]
    ours_s, bare_s = zip(*times, strict=True)
    return Speed(ours_s, bare_s, rounds * calls.tokens, rounds * calls.padded)


def distill_speed(recipe: DistillRecipe, *, data: Path, rounds: int) -> Speed:
    """Return the speed of a recipe's first steps beside forward, backward and optimiser alone.

    After each step a copy of the student takes the bare one, on the batches of the step.

    Raises:
        RecipeError: The recipe or an input cannot be used.
    """
    accelerator = start_accelerator(recipe.precision)
    model, tokenizer = build_student(recipe.student, seed=recipe.seed)
    encoder = pair_encoder(tokenizer, recipe.student)
    queries, _ = read_taught(recipe, data, encoder)
    lessons = Lessons(queries, recipe)
    turns = Turns(copy.deepcopy(model).to(accelerator.device), accelerator)

    def parts(step: int) -> list[Part]:
        turns.change()
        return step_parts(step, lessons, encoder, recipe, accelerator)

    with TemporaryDirectory() as folder, turns.calls.of(model):
        train(
            model,
            accelerator=accelerator,
            folder=Path(folder),
            fingerprint="",
            settings=recipe.optimiser,
            steps=min(rounds + WARM_UP + 1, lessons.steps_per_epoch * recipe.epochs),
            seed=recipe.seed,
            save_every=rounds + WARM_UP + 1,
            evaluate_every=rounds + WARM_UP + 1,
            feed=ByStep(parts),
            evaluate=lambda _: {"none": 0.0},
            figure="none",
            keep=lambda *_: None,
        )
    return turns.speed()


class Turns:
    """Lets a copy of a student take each step again, bare, before the next one."""

    def __init__(self, twin: nn.Module, accelerator: Accelerator) -> None:
        self.calls = Calls()
        self._twin = twin.train()
        self._accelerator = accelerator
        self._optimiser = torch.optim.AdamW(twin.parameters(), lr=1e-5, fused=True)
        self._began: float | None = None
        self._rounds: list[tuple[float, float, int, int]] = []

    def change(self) -> None:
        """End the step that was taken, take the bare one, and begin the next."""
        device = self._accelerator.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if self._began is not None:
            ours_s = perf_counter() - self._began
            bare_s = seconds(self._step, device)
            self._rounds.append((ours_s, bare_s, self.calls.tokens, self.calls.padded))
        self.calls.inputs.clear()
        self.calls.tokens = self.calls.padded = 0
        self._began = perf_counter()

    def speed(self) -> Speed:
        """Return the speed of the steps after the first ones."""
        ours_s, bare_s, tokens, padded = zip(*self._rounds[WARM_UP:], strict=True)
        return Speed(ours_s, bare_s, sum(tokens), sum(padded))

    def _step(self) -> None:
        with self._accelerator.autocast():
            scores = [self._twin(**inputs).logits for inputs in self.calls.inputs]
            loss = torch.cat(scores).square().mean()
        self._accelerator.backward(loss)
        self._optimiser.step()
        self._optimiser.zero_grad()
