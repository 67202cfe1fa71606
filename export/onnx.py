"""Checkpoint to a fused fp32 ONNX graph: optimum exports, ONNX Runtime's optimizer fuses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from export.architecture import Architecture
from export.errors import ExportError
from export.quiet import quiet

DATA = "model.onnx.data"
"""The weights, beside the graph: an ONNX file ends at 2 GB, half a billion of them."""

FUSED = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Architectures that ONNX Runtime's optimizer knows as "bert"; others go in as they are."""

OPSET = 17
"""Of graphs that `int8_linears` rewrites: later ones take a reduction's axes in another way."""


def export_graph(checkpoint: Path, folder: Path, *, opset: int | None = None) -> Path:
    """Write the plain graph of a checkpoint with one label into folder and return its file.

    Args:
        checkpoint: Its folder.
        folder: Where optimum may write.
        opset: ONNX's version of the operators; by default what optimum takes.
    """
    from optimum.exporters.onnx import main_export

    with quiet():
        main_export(
            str(checkpoint),
            output=folder,
            task="text-classification",
            framework="pt",
            dtype="fp32",
            opset=opset,
            do_validation=False,  # parity.py compares on real pairs instead
            no_post_process=True,
        )
    return folder / "model.onnx"


def export_bert(checkpoint: Path, target: Path, architecture: Architecture) -> None:
    """Write a BERT's graph to target, attention, layer norms and GELU fused.

    Args:
        checkpoint: Its folder.
        target: The ONNX file to write; inputs input_ids, attention_mask, token_type_ids,
            int64 [B, L], output logits, float32 [B, 1].
        architecture: Its architecture.

    Raises:
        ExportError: The graph did not fuse whole.
    """
    optimised = _optimised(checkpoint, target.parent, architecture)
    optimised.save_model_to_file(str(target))
    layers = architecture.layers
    fused = optimised.get_fused_operator_statistics()
    expected = {
        "EmbedLayerNormalization": 1,
        "Attention": layers,
        "SkipLayerNormalization": 2 * layers,
        "BiasGelu": layers,
    }
    missed = {name: fused.get(name) for name, count in expected.items() if fused.get(name) != count}
    if missed:
        raise ExportError(f"{checkpoint}: the graph did not fuse: {missed}, expected {expected}")


def export_encoder(checkpoint: Path, target: Path, architecture: Architecture) -> None:
    """Write an encoder's graph to target and its weights to `DATA` beside it.

    Linear maps stay operators of their own, so that `int8_linears` finds them.

    Args:
        checkpoint: Its folder.
        target: The ONNX file to write; inputs as in `architecture`, int64 [B, L], output logits,
            float32 [B, 1].
        architecture: Its architecture.

    Raises:
        ExportError: The graph takes other inputs than its architecture.
    """
    import onnx

    if architecture.kind in FUSED:
        model = _optimised(checkpoint, target.parent, architecture).model
    else:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            model = onnx.load(export_graph(checkpoint, Path(scratch), opset=OPSET))
    inputs = {node.name for node in model.graph.input}
    if inputs != set(architecture.inputs):
        raise ExportError(
            f"{checkpoint}: the graph takes {sorted(inputs)}, not {sorted(architecture.inputs)}"
        )
    onnx.save_model(model, target, save_as_external_data=True, location=DATA)


def _optimised(checkpoint: Path, folder: Path, architecture: Architecture) -> Any:
    """Return what ONNX Runtime's optimizer makes of the plain graph."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    options = FusionOptions("bert")
    opset = None
    if not architecture.is_native:
        opset = OPSET
        options.use_multi_head_attention = True
        options.enable_embed_layer_norm = False
    with tempfile.TemporaryDirectory(dir=folder) as scratch, quiet():
        return optimize_model(
            str(export_graph(checkpoint, Path(scratch), opset=opset)),
            model_type="bert",
            num_heads=architecture.heads,
            hidden_size=architecture.hidden,
            opt_level=0,
            optimization_options=options,
        )
