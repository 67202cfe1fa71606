"""The latency table: milliseconds, ratios, fraction of the floor, documents and their price."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from training.figures import Estimate
from training.latency import Latency, Workload, measure, ratio
from training.shapes import PAPER, SMALL, STUDENTS, Shape

Precision = Literal["fp32", "bf16"]
Sizes = Literal["paper", "small", "students"]

SHAPES: dict[Sizes, tuple[Shape, ...]] = {"paper": PAPER, "small": SMALL, "students": STUDENTS}
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def latency_table(
    *,
    sizes: Sizes | None,
    precisions: Sequence[Precision],
    batch: int | None,
    length: int | None,
    rounds: int,
    price_per_hour: float | None,
    json_to: Path | None,
) -> None:
    """Print a Markdown table a precision, for the best device there is.

    Args:
        sizes: "paper" (7B, BERT-12, BERT-6), "small", or "students" (BERT-12 and what it is
            distilled into); default: paper on a GPU, small on a CPU.
        precisions: Default: bf16 on a GPU, fp32 on a CPU.
        batch: Pairs a call; default: 48 at the paper's sizes and for students on a GPU, else 8.
        length: Tokens a pair; default: 256 where that is 48, else 64.
        rounds: Timed calls of each shape.
        price_per_hour: Of the machine; without it nothing is said of cost.
        json_to: Where to write every round's time too, and what is printed as `report`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = sizes or ("paper" if device.type == "cuda" else "small")
    shapes = SHAPES[sizes]
    full = sizes == "paper" or (sizes == "students" and device.type == "cuda")
    usual_batch, usual_length = (48, 256) if full else (8, 64)
    batch, length = batch or usual_batch, length or usual_length
    parts = [_conditions(device, sizes, batch, length, rounds)]
    print(parts[0])
    found: dict[str, object] = {}
    for precision in precisions or (("bf16",) if device.type == "cuda" else ("fp32",)):
        workload = Workload(batch, length, DTYPES[precision], device)
        latencies = measure(shapes, workload, rounds=rounds)
        parts.append(_table(precision, latencies, workload, price_per_hour))
        print(parts[-1], flush=True)
        found[precision] = [_plain(latency) for latency in latencies]
    if json_to is not None:
        found["report"] = "\n".join(parts)
        json_to.parent.mkdir(parents=True, exist_ok=True)
        json_to.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _conditions(device: torch.device, sizes: Sizes, batch: int, length: int, rounds: int) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    note = "" if sizes != "small" else " Smaller than the paper's: only the order compares."
    return (
        f"{name}, torch {torch.__version__}; batch {batch} × {length} tokens, random weights, "
        f"{rounds} rounds in turns, medians with 95 % intervals.{note}\n"
    )


def _table(
    precision: Precision,
    latencies: Sequence[Latency],
    workload: Workload,
    price_per_hour: float | None,
) -> str:
    reference = latencies[-1]
    rate = reference.flops_per_s / 1e12
    heads = ["model", "parameters", "ms a call", f"× {reference.shape.name}"]
    heads += ["of the floor", "documents/s"]
    if price_per_hour is not None:
        heads.append(f"cost of 1 M documents at {price_per_hour:g} an hour")
    lines = [
        f"{precision}; matrix products {rate:,.2f} TFLOP/s, which is the floor\n",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for latency in latencies:
        cells = [
            latency.shape.name,
            f"{latency.parameters / 1e6:,.0f} M",
            _estimate(latency.milliseconds),
            _estimate(ratio(latency, reference)),
            f"{latency.of_floor:.0%}",
            f"{latency.documents_per_s(workload):,.0f}",
        ]
        if price_per_hour is not None:
            cells.append(f"{cost_per_million(latency, workload, price_per_hour):,.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def cost_per_million(latency: Latency, workload: Workload, price_per_hour: float) -> float:
    """Return what scoring a million documents costs at a machine's price per hour."""
    return price_per_hour / 3600 * 1e6 / latency.documents_per_s(workload)


def _estimate(found: Estimate) -> str:
    return f"{found.value:,.2f} [{found.low:,.2f}, {found.high:,.2f}]"


def _plain(latency: Latency) -> dict[str, object]:
    return {
        "shape": asdict(latency.shape),
        "parameters": latency.parameters,
        "flops": latency.flops,
        "flops_per_s": latency.flops_per_s,
        "times_s": latency.times_s.tolist(),
    }
