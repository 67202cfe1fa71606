"""Latency of rankers by shape, in turns, beside what the device's matrix products allow."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from training.figures import Estimate, Floats, interval
from training.shapes import Shape

BOOTSTRAPS = 1000
MATRIX = {"cuda": 8192, "cpu": 1024}
"""Rows of the square matrices that the device's rate is measured with."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What one call scores."""

    batch: int
    length: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class Latency:
    """One shape's calls.

    Attributes:
        shape: What was run.
        parameters: Its number of weights.
        flops: Operations a call.
        times_s: Seconds of each call, one a round, [R].
        flops_per_s: The best rate of matrix products seen in the same rounds.
    """

    shape: Shape
    parameters: int
    flops: float
    times_s: Floats
    flops_per_s: float

    @property
    def milliseconds(self) -> Estimate:
        """The median call with its 95 % bootstrap interval over rounds."""
        return median(self.times_s * 1000)

    @property
    def of_floor(self) -> float:
        """The time that matrix products alone would take, over the median time; 1 is perfect."""
        return self.flops / self.flops_per_s / float(np.median(self.times_s))

    def documents_per_s(self, workload: Workload) -> float:
        """Return how many documents a second the median call scores."""
        return workload.batch / float(np.median(self.times_s))


def measure(
    shapes: Sequence[Shape], workload: Workload, *, rounds: int, warm_up: int = 3
) -> list[Latency]:
    """Return the latency of every shape; in each round all of them are run, one after the other.

    Inputs are full: `length` tokens a pair, no padding. On a GPU a call is timed from an idle
    device to an idle device.

    Args:
        shapes: What to run; all of them are on the device at once.
        workload: Batch, length, dtype and device.
        rounds: Timed calls of each shape.
        warm_up: Calls before those that are timed.
    """
    calls = [_call(shape, workload) for shape in shapes]
    products, operations = _matrix_product(workload)
    for _ in range(warm_up):
        for run, _ in calls:
            run()
        products()
    times = np.empty((rounds, len(calls)))  # [R, S]
    rates = []
    for row in tqdm(times, desc="rounds", disable=None):
        rates.append(operations / seconds(products, workload.device))
        for place, (run, _) in enumerate(calls):
            row[place] = seconds(run, workload.device)
    found = [
        Latency(
            shape,
            parameters,
            shape.flops(workload.batch, workload.length),
            times[:, place],
            max(rates),
        )
        for place, (shape, (_, parameters)) in enumerate(zip(shapes, calls, strict=True))
    ]
    calls.clear()
    _free(workload.device)
    return found


def ratio(latency: Latency, reference: Latency) -> Estimate:
    """Return the median of the rounds' ratios of time, with its 95 % bootstrap interval."""
    return median(latency.times_s / reference.times_s)


def median(values: Floats) -> Estimate:
    """Return the median of repeats with its 95 % bootstrap interval."""
    picks = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAPS, len(values)))
    low, high = interval(np.median(values[picks], axis=1))
    return Estimate(float(np.median(values)), low, high)


def _call(shape: Shape, workload: Workload) -> tuple[Callable[[], object], int]:
    model = shape.build(device=workload.device, dtype=workload.dtype)
    size = (workload.batch, workload.length)
    ids = torch.randint(1, shape.vocabulary, size, device=workload.device)  # [B, L]

    @torch.inference_mode()
    def run() -> object:
        return model(input_ids=ids)

    return run, sum(parameter.numel() for parameter in model.parameters())


def _matrix_product(workload: Workload) -> tuple[Callable[[], object], float]:
    size = MATRIX[workload.device.type]
    a, b = (torch.randn(size, size, device=workload.device).to(workload.dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * size**3


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, until the device is done with it."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
