"""A Triton model's `config.pbtxt`, made from a bundle's manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType as Type
from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelInstanceGroup,
    ModelQueuePolicy,
    ModelWarmup,
)

from export.tensorrt_plan import PLAN, PlanCard
from service.contract.manifest import Manifest
from service.contract.triton import (
    BUNDLE_PARAMETER,
    LOW,
    MAX_BATCH,
    NORMAL,
    PRECISION_PARAMETER,
    TritonPrecision,
    model_name,
    widths,
)

Device = Literal["cpu", "gpu"]

MAX_QUEUE = 256
"""Requests waiting in Triton; the service admits by deadline long before so many."""

QUEUE_TIMEOUT_US = 3_600_000_000
"""Longest wait in Triton's queue: the longest deadline that the service accepts.

A request's own deadline, which the service always sends, can only shorten it."""

GPU_ARENA_BYTES = 4 << 30
"""For activations, beside the weights; a BERT-base on 48 x 256 tokens takes less than half."""

ENGINE_CACHE = "/var/cache/tensorrt"
"""Where TensorRT keeps its engines; a volume there spares minutes at each start."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a model is to run on.

    Attributes:
        device: CPU, or NVIDIA's GPUs.
        precision: Of the model.
        instances: Copies of the model that run side by side, on each GPU if there are several.
        tensorrt: Whether ONNX Runtime hands the model to TensorRT.
        plan: The card of the TensorRT plan that runs instead of ONNX Runtime.
    """

    device: Device
    precision: TritonPrecision
    instances: int = 1
    tensorrt: bool = False
    plan: PlanCard | None = None

    @property
    def model_file(self) -> str:
        """What Triton is told to load."""
        return "model.onnx" if self.plan is None else PLAN


def config_text(manifest: Manifest, target: Target, *, weights_bytes: int) -> str:
    """Return the `config.pbtxt` of a bundle's model, checked against Triton's own schema.

    Args:
        manifest: The bundle's.
        target: What the model is to run on.
        weights_bytes: Size of the model's files.
    """
    config = ModelConfig(
        name=model_name(manifest),
        backend="onnxruntime" if target.plan is None else "tensorrt",
        max_batch_size=MAX_BATCH if target.plan is None else target.plan.max_batch,
        default_model_filename=target.model_file,
    )
    config.version_policy.latest.num_versions = 1
    for name in manifest.inputs:
        config.input.add(name=name, data_type=Type.TYPE_INT64, dims=[-1])
    config.output.add(name=manifest.output, data_type=Type.TYPE_FP32, dims=[1])
    _add_batching(config)
    if target.plan is None:
        _add_instances(config, target, weights_bytes)
    else:
        _add_plan(config, target.plan, target.instances)
    if target.tensorrt:
        _add_tensorrt(config, manifest, target)
    config.model_warmup.extend(_warm_ups(manifest, target))
    _set(config, BUNDLE_PARAMETER, manifest.version)
    _set(config, PRECISION_PARAMETER, target.precision)
    text: str = text_format.MessageToString(config)
    return text


def _add_batching(config: Any) -> None:
    """Merge what waits when an instance is free, without waiting for more, up to `MAX_BATCH`."""
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = 0
    batching.priority_levels = LOW
    batching.default_priority_level = NORMAL
    policy = batching.default_queue_policy
    policy.timeout_action = ModelQueuePolicy.TimeoutAction.REJECT
    policy.default_timeout_microseconds = QUEUE_TIMEOUT_US
    policy.allow_timeout_override = True
    policy.max_queue_size = MAX_QUEUE


def _add_instances(config: Any, target: Target, weights_bytes: int) -> None:
    if target.device == "cpu":
        config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=target.instances)
        # One instance has all cores; several have one each, which is faster where many wait.
        _set(config, "intra_op_thread_count", "0" if target.instances == 1 else "1")
        _set(config, "inter_op_thread_count", "1")
        return
    config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU, count=target.instances)
    _set(config, "gpu_mem_limit", str(weights_bytes + GPU_ARENA_BYTES))
    # As much as asked for: the shapes are few, and doubling would take what other models need.
    _set(config, "arena_extend_strategy", "1")


def _add_tensorrt(config: Any, manifest: Manifest, target: Target) -> None:
    """Hand the model to TensorRT, with one optimisation profile a width, best at full batches."""
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
        name="tensorrt"
    )
    options = {
        "precision_mode": "FP16" if target.precision == "fp16" else "FP32",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": ENGINE_CACHE,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": ENGINE_CACHE,
        "trt_profile_min_shapes": _shapes(manifest, 1),
        "trt_profile_opt_shapes": _shapes(manifest, MAX_BATCH),
        "trt_profile_max_shapes": _shapes(manifest, MAX_BATCH),
    }
    for key, value in options.items():
        accelerator.parameters[key] = value


def _add_plan(config: Any, plan: PlanCard, instances: int) -> None:
    """Give every instance all profiles, of which Triton takes the one that a batch's width has.

    An instance of one profile alone would be handed batches of the others too.
    """
    config.platform = "tensorrt_plan"
    group = config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU, count=instances)
    group.profile.extend(str(number) for number in range(len(plan.widths)))
    _set(config, "gpu", f"{plan.gpu} ({plan.compute_capability})")
    _set(config, "tensorrt", plan.tensorrt)


def _shapes(manifest: Manifest, batch: int) -> str:
    return ",".join(
        f"{name}:{batch}x{width}"
        for width in widths(manifest.max_length)
        for name in manifest.inputs
    )


def _warm_ups(manifest: Manifest, target: Target) -> Iterable[Any]:
    """Yield one sample a width: on a GPU a full batch, which takes the memory it will need."""
    for width in widths(manifest.max_length):
        inputs = {
            name: ModelWarmup.Input(data_type=Type.TYPE_INT64, dims=[width], zero_data=True)
            for name in manifest.inputs
        }
        yield ModelWarmup(
            name=f"width-{width}",
            batch_size=MAX_BATCH if target.device == "gpu" else 1,
            inputs=inputs,
        )


def _set(config: Any, key: str, value: str) -> None:
    config.parameters[key].string_value = value
