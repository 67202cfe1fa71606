import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from export.__main__ import main
from export.bundle import export_bundle
from service.api.schema import MAX_DEADLINE_MS
from service.contract.bundle import TOKENIZER, Bundle, write_bundle
from service.contract.triton import MAX_BATCH, widths
from service.scorers.onnx import OnnxScorer
from tests.encoders import tiny_encoder


def export(bundle: Bundle, repository: Path, *flags: str) -> int:
    return main(["triton", str(bundle.root), str(repository), *flags])


def model_folder(bundle: Bundle, repository: Path) -> Path:
    return repository / f"toy-{bundle.short_version}"


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())


def test_configuration_is_the_manifests(bundle: Bundle, tmp_path: Path) -> None:
    assert export(bundle, tmp_path, "--precision", "fp32") == 0
    folder = model_folder(bundle, tmp_path)
    config = read_config(folder)
    assert config.name == folder.name
    assert [(entry.name, [*entry.dims]) for entry in config.input] == [
        (name, [-1]) for name in bundle.manifest.inputs
    ]
    assert {entry.data_type for entry in config.input} == {DataType.TYPE_INT64}
    assert [entry.name for entry in config.output] == [bundle.manifest.output]
    assert config.max_batch_size == MAX_BATCH
    assert config.dynamic_batching.max_queue_delay_microseconds <= 200
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds == 1000 * MAX_DEADLINE_MS
    assert policy.timeout_action == policy.REJECT
    assert policy.allow_timeout_override
    assert config.parameters["bundle_version"].string_value == bundle.manifest.version
    assert config.parameters["precision"].string_value == "fp32"
    warmed = [tuple(sample.inputs["input_ids"].dims) for sample in config.model_warmup]
    assert warmed == [(32,), (64,), (128,), (192,), (256,)]


def test_model_is_the_bundles(bundle: Bundle, tmp_path: Path) -> None:
    assert export(bundle, tmp_path, "--precision", "fp32") == 0
    model = model_folder(bundle, tmp_path) / "1" / "model.onnx"
    assert model.read_bytes() == bundle.model_path("fp32").read_bytes()


def test_int8_takes_its_weights_along(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(bundle, tmp_path) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["precision"] == "int8"
    pairs = bundle.encoder().encode(bundle.golden[0].query, bundle.golden[0].candidates)
    found = OnnxScorer(Path(report["model"]) / "1" / "model.onnx").score(pairs)
    assert np.array_equal(found, OnnxScorer(bundle.model_path("int8")).score(pairs))


def test_gpu_gets_half_precision_and_full_batches(bundle: Bundle, tmp_path: Path) -> None:
    assert export(bundle, tmp_path, "--device", "gpu") == 0
    folder = model_folder(bundle, tmp_path)
    config = read_config(folder)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_GPU, 2)
    assert {sample.batch_size for sample in config.model_warmup} == {MAX_BATCH}
    model = folder / "1" / "model.onnx"
    assert model.stat().st_size < 0.6 * bundle.model_path("fp32").stat().st_size
    golden = bundle.golden[0]
    scores = OnnxScorer(model).score(bundle.encoder().encode(golden.query, golden.candidates))
    assert np.abs(scores - golden.scores).max() < 0.1


def test_tensorrt_has_a_profile_for_every_width(tmp_path: Path) -> None:
    checkpoint = tiny_encoder(tmp_path / "checkpoint", "modernbert")
    bundle = export_bundle(checkpoint, tmp_path / "bundle", name="toy", precisions=("fp32",)).bundle
    assert export(bundle, tmp_path, "--device", "gpu", "--tensorrt") == 0
    config = read_config(model_folder(bundle, tmp_path))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["trt_engine_cache_enable"] == "1"
    best = accelerator.parameters["trt_profile_opt_shapes"].split(",")
    assert best == [
        f"{name}:48x{width}"
        for width in widths(bundle.manifest.max_length)
        for name in bundle.manifest.inputs
    ]


def test_widths_end_at_the_longest_pair() -> None:
    assert widths(256) == (32, 64, 128, 192, 256)
    assert widths(100) == (32, 64, 100)
    assert widths(8) == (8,)
    assert widths(8192)[-2:] == (4096, 8192)


def test_overwritten_model_gets_the_next_number(bundle: Bundle, tmp_path: Path) -> None:
    assert export(bundle, tmp_path) == 0
    assert export(bundle, tmp_path) == 2
    assert export(bundle, tmp_path, "--precision", "fp32", "--overwrite") == 0
    folder = model_folder(bundle, tmp_path)
    assert {path.name for path in folder.iterdir()} == {"2", "config.pbtxt"}
    assert read_config(folder).parameters["precision"].string_value == "fp32"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--precision", "fp16"), "fp16 is for GPUs"),
        (("--tensorrt",), "TensorRT is for GPUs"),
        (("--device", "gpu", "--precision", "int8"), "a GPU takes fp16 or fp32"),
        (("--device", "gpu", "--tensorrt"), "operators of ONNX Runtime's own (Attention, "),
        (("--instances", "0"), "at least 1"),
    ],
)
def test_target_without_sense_is_refused(
    bundle: Bundle,
    tmp_path: Path,
    flags: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(bundle, tmp_path / "repository", *flags) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "repository").exists()


def test_repository_that_cannot_be_written_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert export(bundle, tmp_path / "file" / "repository") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_missing_model_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_int8 = bundle.manifest.model_copy(
        update={"precisions": {"int8": bundle.manifest.precisions["int8"]}}
    )
    names = (TOKENIZER, *bundle.manifest.precisions["int8"].files)
    files = {name: bundle.root / name for name in names}
    small = write_bundle(tmp_path / "small", only_int8, files, bundle.golden)
    assert export(small, tmp_path / "repository", "--device", "gpu") == 2
    told = capsys.readouterr().err
    assert "no fp32 model" in told
    assert "python -m export bundle CHECKPOINT BUNDLE --precision fp32" in told


def test_wrong_half_precision_is_refused(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = bundle.golden
    wrong = type(first)(first.query, first.candidates, tuple(s + 1 for s in first.scores))
    names = [name for name in bundle.manifest.files if name != "golden.jsonl"]
    files = {name: bundle.root / name for name in names}
    made = write_bundle(tmp_path / "wrong", bundle.manifest, files, [wrong, *others])
    assert export(made, tmp_path / "repository", "--device", "gpu") == 2
    assert "golden query 1 deviates by 1" in capsys.readouterr().err
    assert [*(tmp_path / "repository").iterdir()] == []
