"""Checkpoint to a TensorRT plan beside its bundle: build, hold against the gates, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from export.errors import ExportError
from export.examples import parity_examples
from export.golden import require_golden
from export.graph import GraphForm, write_graph
from export.parity import GATES, HALF_GATES, Gates, Parity, compare, encode_examples, torch_scores
from export.plan import make_plan
from export.quantised_graph import check_quantised
from export.tensorrt_plan import CARD, PLAN, Gpu, PlanCard, PlanPrecision, fingerprint
from service.contract.bundle import Bundle
from service.contract.folder import replaced_folder, restore_folder
from service.contract.manifest import Manifest
from service.contract.triton import MAX_BATCH, model_name, tolerance, widths
from service.scorers.scorer import Scorer

PLAN_GATES: dict[PlanPrecision, Gates] = {
    "fp32": Gates(max_delta=1e-3),  # a GPU sums in another order
    "fp16": HALF_GATES,
    "int8": GATES["int8"],
    "fp8": GATES["int8"],
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that a plan is made for: 1 to `max_batch` rows, best at all of them.

    Attributes:
        inputs: What the graph takes, by name.
        width: Tokens a row.
        max_batch: Most rows.
    """

    inputs: tuple[str, ...]
    width: int
    max_batch: int = MAX_BATCH


class PlanHost(Protocol):
    """A machine that makes and runs plans."""

    @property
    def gpu(self) -> Gpu:
        """Its GPU."""
        ...

    @property
    def tensorrt(self) -> str:
        """Version of its TensorRT."""
        ...

    def build(self, graph: Path, profiles: Sequence[Profile], timings: Path) -> bytes:
        """Return the plan of an ONNX file whose types say its precision.

        Args:
            graph: The file.
            profiles: One a width.
            timings: File of measured kernels, read where it is there and written.

        Raises:
            ExportError: TensorRT refuses.
        """
        ...

    def scorer(self, plan: bytes, manifest: Manifest, /) -> Scorer:
        """Return what scores pairs with a plan, on the GPU."""
        ...


@dataclass(frozen=True, slots=True)
class WrittenPlan:
    """A plan's folder, and the card in it."""

    folder: Path
    card: PlanCard


def export_tensorrt(
    bundle: Bundle,
    checkpoint: Path,
    plans: Path,
    *,
    host: PlanHost,
    precision: PlanPrecision = "fp16",
    quantised: Path | None = None,
    examples: Path | None = None,
    gates: Mapping[PlanPrecision, Gates] = PLAN_GATES,
    overwrite: bool = False,
) -> WrittenPlan:
    """Write the plan of a bundle's model for this host, or refuse.

    Args:
        bundle: The opened bundle.
        checkpoint: What it was made of, since its own graph is of ONNX Runtime's operators.
        plans: Folder of plans; each has one of its own, named by bundle, precision and host.
        host: Makes and runs it.
        precision: Of the plan.
        quantised: For int8 and fp8, the checkpoint's graph with calibrated Q/DQ nodes.
        examples: Pairs for the parity report, JSON Lines; default: as for a bundle.
        gates: What each precision has to keep of the checkpoint's ranking.
        overwrite: Replace an existing plan.

    Raises:
        ExportError: TensorRT refuses, a gate fails, or the checkpoint is not the bundle's.
        OSError: The disk refused; the plan is as it was.
    """
    if (quantised is None) == (precision in ("int8", "fp8")):
        raise ExportError("--graph gives the Q/DQ nodes of int8 and fp8, which need one")
    key = f"sm{host.gpu.capability.replace('.', '')}-trt{host.tensorrt}"
    folder = plans / f"{model_name(bundle.manifest)}-{precision}-{key}"
    restore_folder(folder)
    if folder.exists() and not overwrite:
        raise ExportError(f"{folder} exists; --overwrite replaces it")
    plans.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plans, prefix=".export-") as scratch:
        graph = quantised or _graph(bundle, checkpoint, Path(scratch), precision)
        if quantised is not None:
            check_quantised(quantised, bundle.manifest, precision)
        lengths = widths(bundle.manifest.max_length)
        profiles = [Profile(bundle.manifest.inputs, width) for width in lengths]
        plan = host.build(graph, profiles, plans / f"timing-{key}.cache")
    parity = _judged(
        bundle, checkpoint, host.scorer(plan, bundle.manifest), precision, examples, gates
    )
    with replaced_folder(folder) as inside:
        (inside / PLAN).write_bytes(plan)
        card = PlanCard(
            bundle_version=bundle.manifest.version,
            precision=precision,
            widths=lengths,
            max_batch=MAX_BATCH,
            gpu=host.gpu.name,
            compute_capability=host.gpu.capability,
            tensorrt=host.tensorrt,
            sha256=fingerprint(inside / PLAN),
            size_bytes=len(plan),
            parity=dict(parity.as_dict()),
        )
        (inside / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return WrittenPlan(folder, card)


def _graph(bundle: Bundle, checkpoint: Path, folder: Path, precision: PlanPrecision) -> Path:
    """Write the graph of standard operators in the plan's types, and return its file."""
    draft = make_plan(
        checkpoint,
        folder,
        name=bundle.manifest.name,
        precisions=("fp32",),
        max_length=bundle.manifest.max_length,
    )
    if set(draft.draft.inputs) != set(bundle.manifest.inputs):
        raise ExportError(f"{checkpoint} is not what {bundle.root} was made of: other inputs")
    form = GraphForm("fp16" if precision == "fp16" else "fp32", plain=True)
    return write_graph(draft, folder, form)


def _judged(
    bundle: Bundle,
    checkpoint: Path,
    scorer: Scorer,
    precision: PlanPrecision,
    examples: Path | None,
    gates: Mapping[PlanPrecision, Gates],
) -> Parity:
    """Return how the plan stands beside the checkpoint, on this host's GPU."""
    allowed = tolerance(bundle.manifest, bundle.golden, precision)
    where = "the plan (is the checkpoint what the bundle was made of?)"
    require_golden(bundle, scorer, tolerance=allowed, where=where)
    encoder, held_out = bundle.encoder(), parity_examples(checkpoint, examples)
    pairs = encode_examples(encoder, held_out)
    reference = torch_scores(checkpoint, pairs, bundle.manifest.inputs)
    parity = compare(held_out, pairs, reference, scorer.score, name=f"{precision} plan")
    if failures := parity.failures(gates[precision].for_scores(reference)):
        raise ExportError(f"{checkpoint}: no plan written, gates failed: {'; '.join(failures)}")
    return parity
