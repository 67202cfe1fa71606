"""Checkpoint to a fused fp32 ONNX graph: optimum exports, ONNX Runtime's optimizer fuses."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError
from service.contract.checkpoint import CARD
from service.contract.template import DECODER_TEMPLATE


def read_config(checkpoint: Path) -> dict[str, int]:
    """Return the sizes of a checkpoint that can be exported.

    Raises:
        ExportError: The folder has no `config.json`, or it is not that of a BERT with one label.
    """
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{checkpoint} is no checkpoint: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") != "bert":
        raise ExportError(
            f"{checkpoint}: config.json is not that of a BERT, nor does {CARD} name the template "
            f"{DECODER_TEMPLATE!r} of a decoder"
        )
    labels = len(config.get("id2label", {"0": "", "1": ""}))
    if labels != 1:
        raise ExportError(f"{checkpoint}: the head has {labels} labels; a ranker has 1")
    sizes = ("num_attention_heads", "hidden_size", "num_hidden_layers", "max_position_embeddings")
    if missing := [name for name in sizes if not isinstance(config.get(name), int)]:
        raise ExportError(f"{checkpoint}: config.json has no {', '.join(missing)}")
    return {name: config[name] for name in sizes}


def export_fp32(checkpoint: Path, target: Path) -> None:
    """Write the checkpoint's graph to target, attention, layer norms and GELU fused.

    Args:
        checkpoint: A Hugging Face folder of a BERT with one label.
        target: The ONNX file to write; inputs input_ids, attention_mask, token_type_ids,
            int64 [B, L], output logits, float32 [B, 1].

    Raises:
        ExportError: The checkpoint is no BERT ranker, or its graph did not fuse whole.
    """
    config = read_config(checkpoint)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, quiet():
        from onnxruntime.transformers.optimizer import optimize_model
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint),
            output=scratch,
            task="text-classification",
            framework="pt",
            do_validation=False,  # parity.py compares on real pairs instead
            no_post_process=True,
        )
        optimised = optimize_model(
            str(Path(scratch) / "model.onnx"),
            model_type="bert",
            num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"],
            opt_level=0,
        )
        optimised.save_model_to_file(str(target))
    layers = config["num_hidden_layers"]
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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' progress chatter; their errors still come as exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
