"""What of a cross-encoder's folder decides how it is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.quiet import quiet
from service.contract.checkpoint import CARD
from service.contract.template import DECODER_TEMPLATE
from service.scorers import native


@dataclass(frozen=True, slots=True)
class Architecture:
    """An encoder with one label.

    Attributes:
        kind: transformers' name of it, such as "bert".
        inputs: What its graph takes of a pair, by name.
        positions: Tokens that the longest pair may have; None where nothing limits them.
        pad: Id that shorter rows of a call are padded with.
        heads: Attention heads a layer.
        hidden: Width of a token's state.
        layers: Layers.
        is_native: Whether it is a BERT as the native engine computes it.
    """

    kind: str
    inputs: tuple[str, ...]
    positions: int | None
    pad: int
    heads: int
    hidden: int
    layers: int
    is_native: bool


def read_architecture(checkpoint: Path) -> Architecture:
    """Return the architecture of a checkpoint that can be exported.

    Raises:
        ExportError: It is no encoder with one label, or none that optimum exports.
    """
    config = _config(checkpoint)
    inputs = _inputs(checkpoint, config)
    if config.num_labels != 1:
        raise ExportError(f"{checkpoint}: the head has {config.num_labels} labels; a ranker has 1")
    return Architecture(
        kind=config.model_type,
        inputs=inputs,
        positions=_positions(checkpoint, config),
        pad=config.pad_token_id or 0,
        heads=config.num_attention_heads,
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        is_native=_is_native(config),
    )


def _config(checkpoint: Path) -> Any:
    from transformers import AutoConfig

    if not (checkpoint / "config.json").is_file():
        raise ExportError(f"{checkpoint} is no checkpoint: it has no config.json")
    try:
        with quiet():
            return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except Exception as error:  # transformers and json share no base class
        told = str(error).splitlines()[0]
        raise ExportError(f"{checkpoint} is no checkpoint: config.json: {told}") from error


def _inputs(checkpoint: Path, config: Any) -> tuple[str, ...]:
    """Return the inputs of the graph that optimum makes of an encoder."""
    with quiet():
        import optimum.exporters.onnx.model_configs  # noqa: F401  (fills the tasks below)
        from optimum.exporters.onnx.config import TextEncoderOnnxConfig
        from optimum.exporters.tasks import TasksManager

    kind = config.model_type
    try:
        make = TasksManager.get_exporter_config_constructor(
            "onnx",
            model_type=kind,
            task="text-classification",
            library_name="transformers",
        )
        described = make(config, task="text-classification")
    except (KeyError, ValueError):
        described = None
    if not isinstance(described, TextEncoderOnnxConfig):
        raise ExportError(
            f"{checkpoint}: a {kind!r} is no encoder that can be exported, nor does {CARD} name "
            f"the template {DECODER_TEMPLATE!r} of a decoder"
        )
    return tuple(described.inputs)


def _positions(checkpoint: Path, config: Any) -> int | None:
    """Return the usable positions: RoBERTas count theirs from behind the padding's id."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"), quiet():
            model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:  # a configuration can be wrong in any way
        raise ExportError(f"{checkpoint}: no model can be made of config.json: {error}") from error
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return getattr(config, "max_position_embeddings", None)


def _is_native(config: Any) -> bool:
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and native.why_not_widths(
            hidden=config.hidden_size,
            feed_forward=config.intermediate_size,
            heads=config.num_attention_heads,
        )
        is None
    )
