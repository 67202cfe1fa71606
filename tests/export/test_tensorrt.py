"""Plans, with ONNX Runtime in the place of TensorRT and its GPU, which no test has."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from export.__main__ import main
from export.errors import ExportError
from export.parity import Gates
from export.tensorrt import Profile, WrittenPlan, export_tensorrt
from export.tensorrt_plan import Gpu, PlanPrecision, open_plan
from service.contract.bundle import Bundle
from service.contract.manifest import Manifest
from service.contract.triton import MAX_BATCH
from service.scorers.onnx import OnnxScorer
from tests.tiny import tiny_checkpoint

H200, A100 = Gpu("NVIDIA H200", "9.0"), Gpu("NVIDIA A100-SXM4-80GB", "8.0")
TOY: dict[PlanPrecision, Gates] = {
    "fp32": Gates(max_delta=1e-3),
    "fp16": Gates(max_delta=0.05),
    "int8": Gates(),
}


class OnnxHost:
    """Has a plan that is the graph itself."""

    gpu = H200
    tensorrt = "10.13.3"

    def __init__(self, scratch: Path) -> None:
        self._file = scratch / "loaded.onnx"
        self.profiles: list[Profile] = []
        self.domains: set[str] = set()

    def build(self, graph: Path, profiles: Sequence[Profile], timings: Path) -> bytes:
        self.profiles = [*profiles]
        self.domains = {node.domain for node in onnx.load(graph).graph.node}
        timings.write_bytes(b"timed")
        return graph.read_bytes()

    def scorer(self, plan: bytes, _manifest: Manifest) -> OnnxScorer:
        self._file.write_bytes(plan)
        return OnnxScorer(self._file)


@pytest.fixture
def host(tmp_path: Path) -> OnnxHost:
    return OnnxHost(tmp_path)


def make(bundle: Bundle, checkpoint: Path, host: OnnxHost, plans: Path) -> WrittenPlan:
    return export_tensorrt(bundle, checkpoint, plans, host=host, gates=TOY)


def test_plan_is_of_standard_operators_with_a_profile_a_width(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    plan = make(bundle, checkpoint, host, tmp_path / "plans")
    assert host.domains == {""}
    assert [profile.width for profile in host.profiles] == [32, 64, 128, 192, 256]
    assert {profile.max_batch for profile in host.profiles} == {MAX_BATCH}
    assert {profile.inputs for profile in host.profiles} == {bundle.manifest.inputs}
    assert plan.card.widths == (32, 64, 128, 192, 256)


def test_plan_is_named_by_bundle_precision_gpu_and_version(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    plans = tmp_path / "plans"
    plan = make(bundle, checkpoint, host, plans)
    assert plan.folder.name == f"toy-{bundle.short_version}-fp16-sm90-trt10.13.3"
    assert {path.name for path in plan.folder.iterdir()} == {"model.plan", "plan.json"}
    beside = {path.name for path in plans.iterdir()} - {plan.folder.name}
    assert beside == {"timing-sm90-trt10.13.3.cache"}
    card = open_plan(plan.folder, bundle.manifest)
    assert card == plan.card
    assert (card.gpu, card.compute_capability, card.tensorrt) == ("NVIDIA H200", "9.0", "10.13.3")
    assert card.parity["max_delta"] == pytest.approx(0, abs=0.05)
    with pytest.raises(ExportError, match="--overwrite replaces it"):
        make(bundle, checkpoint, host, plans)


def test_plan_of_another_gpu_or_version_is_refused(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    card = make(bundle, checkpoint, host, tmp_path / "plans").card
    card.refuse_elsewhere([H200, H200], "10.13.3")
    with pytest.raises(ExportError, match=r"made for NVIDIA H200 \(9.0\), this host has .*A100"):
        card.refuse_elsewhere([H200, A100])
    with pytest.raises(ExportError, match=r"by TensorRT 10.13.3, this host has 11.0.0"):
        card.refuse_elsewhere([H200], "11.0.0")


def test_changed_plan_and_that_of_another_bundle_are_refused(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    folder = make(bundle, checkpoint, host, tmp_path / "plans").folder
    other = bundle.manifest.model_copy(update={"version": "0" * 64})
    with pytest.raises(ExportError, match=f"a plan of bundle {bundle.short_version}, not of toy 0"):
        open_plan(folder, other)
    with (folder / "model.plan").open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(ExportError, match=r"model.plan was changed"):
        open_plan(folder, bundle.manifest)
    with pytest.raises(ExportError, match="is no plan of export tensorrt"):
        open_plan(tmp_path, bundle.manifest)


def test_checkpoint_of_another_model_is_refused(
    bundle: Bundle, host: OnnxHost, tmp_path: Path
) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(ExportError, match="is the checkpoint what the bundle was made of"):
        make(bundle, other, host, tmp_path / "plans")
    assert not any(path.is_dir() for path in (tmp_path / "plans").iterdir())


def test_plan_that_fails_its_gate_is_not_written(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    strict: dict[PlanPrecision, Gates] = {"fp16": Gates(max_delta=1e-9)}
    with pytest.raises(ExportError, match="no plan written, gates failed: max"):
        export_tensorrt(bundle, checkpoint, tmp_path / "plans", host=host, gates=strict)
    assert not any(path.is_dir() for path in (tmp_path / "plans").iterdir())


@pytest.fixture
def plan(bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path) -> WrittenPlan:
    return make(bundle, checkpoint, host, tmp_path / "plans")


def test_triton_gets_the_plan_with_all_profiles(
    bundle: Bundle, plan: WrittenPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    flags = [str(bundle.root), str(repository)]
    assert main(["triton", *flags, "--plan", str(plan.folder), "--instances", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["precision"] == "fp16"
    folder = Path(report["model"])
    assert (folder / "1" / "model.plan").read_bytes() == (plan.folder / "model.plan").read_bytes()
    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert config.default_model_filename == "model.plan"
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_GPU, 2)
    assert [*group.profile] == ["0", "1", "2", "3", "4"]
    assert config.max_batch_size == MAX_BATCH
    assert [sample.inputs["input_ids"].dims[0] for sample in config.model_warmup] == [
        *plan.card.widths
    ]
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert told == {
        "bundle_version": bundle.manifest.version,
        "precision": "fp16",
        "gpu": "NVIDIA H200 (9.0)",
        "tensorrt": "10.13.3",
    }


@pytest.mark.parametrize(("seen", "status"), [("NVIDIA H200, 9.0", 0), ("NVIDIA L4, 8.9", 2)])
def test_triton_gets_no_plan_of_another_gpu_than_the_hosts(
    bundle: Bundle,
    plan: WrittenPlan,
    seen: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"  # in the place of the driver's
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{seen}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    into = [str(bundle.root), str(tmp_path / "repository")]
    assert main(["triton", *into, "--plan", str(plan.folder)]) == status
    assert (tmp_path / "repository").exists() == (status == 0)


@pytest.mark.parametrize("flags", [("--precision", "fp16"), ("--device", "cpu"), ("--tensorrt",)])
def test_plan_beside_what_contradicts_it_is_refused(
    bundle: Bundle,
    plan: WrittenPlan,
    flags: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    into = [str(bundle.root), str(tmp_path / "repository")]
    assert main(["triton", *into, "--plan", str(plan.folder), *flags]) == 2
    assert "--plan is for GPUs" in capsys.readouterr().err


def quantised(
    target: Path, kind: int, *, output: str = "logits", ids: int = TensorProto.INT64
) -> Path:
    """Write a graph of a BERT's inputs with a Q/DQ pair of a type."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    zero = helper.make_tensor("zero", kind, [], [0])
    scale = numpy_helper.from_array(np.array(0.1, dtype=np.float32), "scale")
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("ReduceSum", ["d", "axes"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, ids, ["B", "L"]) for name in names],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", 1])],
        [zero, scale, numpy_helper.from_array(np.array([1]), "axes")],
    )
    opsets = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), target)
    return target


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (TensorProto.FLOAT8E4M3FN, {}, r"quantised to \['FLOAT8E4M3FN'\], not to int8"),
        (TensorProto.INT8, {"output": "other"}, "gives"),
        (TensorProto.INT8, {"ids": TensorProto.INT32}, "input_ids is INT32, not INT64"),
        (TensorProto.INT8, {}, "is the checkpoint what"),  # as far as its scores
    ],
)
def test_graph_that_is_not_the_quantised_checkpoint_is_refused(
    bundle: Bundle,
    checkpoint: Path,
    host: OnnxHost,
    kind: int,
    changes: dict[str, Any],
    reason: str,
    tmp_path: Path,
) -> None:
    graph = quantised(tmp_path / "qdq.onnx", kind, **changes)
    with pytest.raises(ExportError, match=reason):
        export_tensorrt(
            bundle,
            checkpoint,
            tmp_path / "plans",
            host=host,
            precision="int8",
            quantised=graph,
            gates=TOY,
        )


def test_int8_without_a_calibrated_graph_is_refused(
    bundle: Bundle, checkpoint: Path, host: OnnxHost, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="--graph gives the Q/DQ nodes"):
        export_tensorrt(bundle, checkpoint, tmp_path / "plans", host=host, precision="int8")


def test_host_without_tensorrt_is_told_what_to_do(
    bundle: Bundle, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = tmp_path / "plans"
    assert main(["tensorrt", str(bundle.root), str(checkpoint), str(plans)]) == 2
    assert "pip install tensorrt-cu12, on a GPU host" in capsys.readouterr().err
    assert not plans.exists()


def test_card_of_a_newer_writer_is_not_half_understood(
    bundle: Bundle, plan: WrittenPlan, tmp_path: Path
) -> None:
    folder = shutil.copytree(plan.folder, tmp_path / "newer")
    told = plan.card.model_dump(mode="json") | {"packed": True}
    (folder / "plan.json").write_text(json.dumps(told))
    with pytest.raises(ExportError, match="packed"):
        open_plan(folder, bundle.manifest)
