"""The bundle's weights in the forms the peers load, so that all rank with the same ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.contract.bundle import TOKENIZER, Bundle
from service.contract.checkpoint import CARD, Card
from service.scorers.weights import Int8Weights

EXPORT_TIMEOUT_S = 600
TOKENIZER_FILES = (
    *("config.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json"),
)
SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class WeightsError(Exception):
    """A bundle whose weights cannot be restored; the message says why."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The same weights three times.

    Attributes:
        checkpoint: Hugging Face folder, fp32: the int8 weights times their scales.
        fp32: Folder with `model.onnx`, the checkpoint's fused graph, and its tokenizer.
        int8: Folder with `model_quantized.onnx`, the bundle's own graph, and its tokenizer.
        plain_int8: The checkpoint's graph, quantised with ONNX Runtime's own defaults for
            dynamic int8, one activation scale a tensor.
    """

    checkpoint: Path
    fp32: Path
    int8: Path
    plain_int8: Path


def prepare_weights(bundle: Bundle, cache: Path) -> Weights:
    """Return the weights, made once a bundle version.

    Args:
        bundle: A bundle with an int8 model, as `python -m export` writes it.
        cache: Folder for what is made.

    Raises:
        WeightsError: The bundle has no int8 model, or export failed.
    """
    root = cache / "weights" / bundle.short_version
    weights = Weights(root / "checkpoint", root / "fp32", root / "int8", root / "plain.int8.onnx")
    if (root / "done").exists():
        return weights
    shutil.rmtree(root, ignore_errors=True)
    source = int8_weights(bundle)
    restore_checkpoint(bundle, weights.checkpoint)
    _export(weights.checkpoint, root / "bundle")
    for folder in (weights.fp32, weights.int8):
        folder.mkdir()
        for file in TOKENIZER_FILES:
            shutil.copyfile(weights.checkpoint / file, folder / file)
    shutil.copyfile(root / "bundle" / "model.onnx", weights.fp32 / "model.onnx")
    shutil.copyfile(bundle.model_path("int8"), weights.int8 / "model_quantized.onnx")
    shutil.copyfile(source, weights.int8 / source.name)  # to which the graph refers
    _quantize_plainly(weights.fp32 / "model.onnx", weights.plain_int8)
    (root / "done").touch()
    return weights


def int8_weights(bundle: Bundle) -> Path:
    """Return the file of the bundle's int8 weights.

    Raises:
        WeightsError: There is none.
    """
    path = bundle.weights_path("int8") if "int8" in bundle.manifest.precisions else None
    if path is None:
        raise WeightsError(
            f"{bundle.root}: no int8 weights of a BERT, which the loops and peers are given; its "
            f"template is {bundle.manifest.template!r}"
        )
    return path


def restore_checkpoint(bundle: Bundle, folder: Path) -> None:
    """Write a Hugging Face folder with the bundle's int8 weights times their scales.

    It computes in fp32 what the int8 model computes, but for the rounding of activations.

    Raises:
        WeightsError: The bundle has no int8 model.
    """
    from safetensors.numpy import save_file

    weights = Int8Weights.read(int8_weights(bundle))
    folder.mkdir(parents=True)
    tensors = {n: np.ascontiguousarray(values) for n, values in weights.dequantised().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(weights))
    manifest = bundle.manifest
    card = Card(max_length=manifest.max_length, max_query_length=manifest.max_query_length)
    (folder / CARD).write_text(card.model_dump_json(), encoding="utf-8")
    _write_tokenizer(bundle, folder)


def _config(weights: Int8Weights) -> dict[str, Any]:
    words, hidden = weights.words[0].shape
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": hidden,
        "hidden_act": "gelu",
        "num_hidden_layers": weights.layers,
        "num_attention_heads": weights.heads,
        "intermediate_size": weights.feed_forward,
        "max_position_embeddings": len(weights["bert.embeddings.position_embeddings.weight"]),
        "type_vocab_size": len(weights["bert.embeddings.token_type_embeddings.weight"]),
        "layer_norm_eps": weights.norm_epsilon,
        "pad_token_id": 0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }


def _write_tokenizer(bundle: Bundle, folder: Path) -> None:
    shutil.copyfile(bundle.root / TOKENIZER, folder / "tokenizer.json")
    normalizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    config = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": bundle.manifest.max_length,
        "do_lower_case": bool((normalizer or {}).get("lowercase", True)),
        **SPECIALS,
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", SPECIALS)


def _export(checkpoint: Path, target: Path) -> None:
    """Have the product's own export fuse the graph."""
    command = [sys.executable, "-m", "export", "bundle", str(checkpoint), str(target)]
    command += ["--precision", "fp32"]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S
    )
    if done.returncode:
        raise WeightsError(f"export of the fp32 graph failed: {done.stderr.strip()[-500:]}")


def _quantize_plainly(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize: Callable[..., None] = quantize_dynamic
    quantize(
        source,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        # The fused operators hide their tensors' types from shape inference.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
