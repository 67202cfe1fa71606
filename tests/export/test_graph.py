import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.__main__ import main
from export.errors import ExportError
from export.examples import own_examples
from export.graph import GraphForm, GraphPrecision, export_onnx
from export.parity import Gates
from service.contract.bundle import Bundle
from service.scorers.onnx import OnnxScorer

TOY: dict[GraphPrecision, Gates] = {
    "fp32": Gates(max_delta=1e-4),
    "fp16": Gates(max_delta=0.05),  # random weights score nearly alike: fp16 reorders them
}
ONNXS_OWN = {""}
FUSED = ONNXS_OWN | {"com.microsoft"}


def domains(model: Any) -> set[str]:
    return {node.domain for node in model.graph.node}


def scores(file: Path, bundle: Bundle) -> list[float]:
    example = own_examples()[0]
    pairs = bundle.encoder().encode(example.query, example.candidates)
    return [float(score) for score in OnnxScorer(file).score(pairs)]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_scores_as_the_checkpoint(
    checkpoint: Path, bundle: Bundle, precision: GraphPrecision, plain: bool, tmp_path: Path
) -> None:
    target = tmp_path / "model.onnx"
    parity = export_onnx(checkpoint, target, GraphForm(precision, plain), gates=TOY)
    assert [*parity] == [precision, f"{precision} padded"]
    bound = 1e-4 if precision == "fp32" else 0.1
    assert np.abs(np.subtract(scores(target, bundle), bundle.golden[0].scores)).max() <= bound
    model = onnx.load(target)
    onnx.checker.check_model(model)
    assert domains(model) == (ONNXS_OWN if plain else FUSED)
    weights = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    wanted = onnx.TensorProto.FLOAT if precision == "fp32" else onnx.TensorProto.FLOAT16
    assert wanted in weights
    assert weights <= {wanted, onnx.TensorProto.INT64}
    assert [*tmp_path.iterdir()] == [target]


def test_attention_of_a_gpus_graph_is_masked_by_length(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    export_onnx(checkpoint, target, GraphForm("fp16"), gates=TOY)
    nodes = onnx.load(target).graph.node
    (embedding,) = (node for node in nodes if node.op_type == "EmbedLayerNormalization")
    lengths = embedding.output[1]  # [B], of the mask's ones
    attention = [node for node in nodes if node.op_type == "Attention"]
    assert [node.input[3] for node in attention] == [lengths] * 2


def test_graph_that_fails_its_gate_is_not_written(checkpoint: Path, tmp_path: Path) -> None:
    gates: dict[GraphPrecision, Gates] = {"fp16": Gates(max_delta=1e-9)}
    with pytest.raises(ExportError, match="no graph written, gates failed: fp16: max"):
        export_onnx(checkpoint, tmp_path / "model.onnx", GraphForm("fp16"), gates=gates)
    assert [*tmp_path.iterdir()] == []


def test_command_reports_and_replaces_only_when_asked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.onnx"
    assert main(["onnx", str(checkpoint), str(target)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size_bytes"] == target.stat().st_size
    assert report["parity"]["fp32 padded"]["max_delta"] <= 1e-4
    assert main(["onnx", str(checkpoint), str(target)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
