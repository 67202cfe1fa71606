"""Checkpoint to one ONNX file, without a bundle: for GPUs and other runtimes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.decoder import export_decoder
from export.errors import ExportError
from export.examples import parity_examples
from export.fp16 import MOST_BYTES, half
from export.onnx import OPSET, export_bert, export_encoder, export_graph
from export.padded import PaddedScorer
from export.parity import GATES, HALF_GATES, Gates, Parity, compare, encode_examples, torch_scores
from export.plan import Plan, make_plan
from service.scorers.onnx import OnnxScorer
from service.scorers.scorer import Scorer

GraphPrecision = Literal["fp32", "fp16"]

GRAPH_GATES: dict[GraphPrecision, Gates] = {"fp32": GATES["fp32"], "fp16": HALF_GATES}


@dataclass(frozen=True, slots=True)
class GraphForm:
    """What a graph is to be.

    Attributes:
        precision: Of weights and activations; inputs are int64, scores float32 in both.
        plain: ONNX's standard operators alone, which TensorRT reads. Otherwise attention, layer
            norms and GELU are ONNX Runtime's own operators, and a BERT's attention is masked by
            each row's length.
    """

    precision: GraphPrecision = "fp32"
    plain: bool = False


def export_onnx(
    checkpoint: Path,
    target: Path,
    form: GraphForm,
    *,
    examples: Path | None = None,
    max_length: int | None = None,
    gates: Mapping[GraphPrecision, Gates] = GRAPH_GATES,
    overwrite: bool = False,
) -> dict[str, Parity]:
    """Write a checkpoint's graph, or refuse; return how it stands beside the checkpoint.

    Args:
        checkpoint: A Hugging Face folder with one label.
        target: The ONNX file.
        form: What it is to be.
        examples: Pairs for the parity report, JSON Lines; default: as for a bundle.
        max_length: Longest pair that is compared; default: as for a bundle.
        gates: What each precision has to keep of the checkpoint's ranking.
        overwrite: Replace an existing target.

    Returns:
        Parity of pairs alone and in padded calls, as ONNX Runtime runs the graph on this CPU.

    Raises:
        ExportError: The checkpoint cannot be exported, fails a gate, or is too large for a file.
    """
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; --overwrite replaces it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        folder = Path(scratch)
        plan = make_plan(
            checkpoint, folder, name="graph", precisions=("fp32",), max_length=max_length
        )
        written = write_graph(plan, folder, form)
        held_out = parity_examples(checkpoint, examples)
        pairs = encode_examples(plan.encoder, held_out)
        reference = torch_scores(checkpoint, pairs, plan.draft.inputs)
        scorers: dict[str, Scorer] = {
            form.precision: OnnxScorer(written),
            f"{form.precision} padded": PaddedScorer(written, pad=plan.pad),
        }
        parity = {
            name: compare(held_out, pairs, reference, scorer.score, name=name)
            for name, scorer in scorers.items()
        }
        gate = gates[form.precision].for_scores(reference)
        failures = [
            f"{name}: {line}" for name, one in parity.items() for line in one.failures(gate)
        ]
        if failures:
            raise ExportError(
                f"{checkpoint}: no graph written, gates failed: {'; '.join(failures)}"
            )
        written.replace(target)
    return parity


def write_graph(plan: Plan, folder: Path, form: GraphForm) -> Path:
    """Write a planned checkpoint's graph, not checked yet, into a folder and return its file.

    Raises:
        ExportError: It is too large for one file.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        model = onnx.load(_export(plan, Path(scratch), plain=form.plain))
    target = folder / "graph.onnx"
    onnx.save(half(model) if form.precision == "fp16" else _whole(model), target)
    return target


def _export(plan: Plan, folder: Path, *, plain: bool) -> Path:
    """Write the fp32 graph and return its file; its weights may lie beside it."""
    if plain:
        return export_graph(plan.checkpoint, folder, opset=OPSET)
    target = folder / "model.onnx"
    if plan.architecture is None:
        export_decoder(plan.checkpoint, target)
    elif plan.architecture.is_native:
        export_bert(plan.checkpoint, target, plan.architecture)
    else:
        export_encoder(plan.checkpoint, target, plan.architecture)
    return target


def _whole(model: Any) -> Any:
    if model.ByteSize() > MOST_BYTES:
        raise ExportError(f"{model.ByteSize()} bytes in fp32 are too many for a file")
    return model
