"""This machine's GPU and TensorRT, through TensorRT's own Python API (10 or 11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.tensorrt import Profile
from export.tensorrt_plan import Gpu
from service.contract.encoding import TokenPair
from service.contract.manifest import Manifest
from service.contract.triton import MAX_BATCH, padding, widths
from service.contract.types import Float32s
from service.scorers.buckets import by_width, padded

MIN_TENSORRT = 10
"""The first whose networks may be strongly typed throughout and take int64; 11 knows no others."""


class TensorRTHost:
    """Makes plans on the first GPU that torch sees, and runs them there."""

    def __init__(self) -> None:
        """Look for TensorRT and a GPU.

        Raises:
            ExportError: One of them is missing.
        """
        try:
            import tensorrt
        except (ImportError, OSError) as error:
            raise ExportError(
                f"TensorRT is not installed ({error}): pip install tensorrt-cu12, on a GPU host"
            ) from None
        import torch

        self._trt: Any = tensorrt
        self.tensorrt: str = tensorrt.__version__
        if int(self.tensorrt.partition(".")[0]) < MIN_TENSORRT:
            raise ExportError(f"TensorRT {self.tensorrt} is too old: {MIN_TENSORRT} or newer")
        if not torch.cuda.is_available():
            raise ExportError("a plan is made on the GPU that runs it, and torch sees none")
        major, minor = torch.cuda.get_device_capability(0)
        self.gpu = Gpu(torch.cuda.get_device_name(0), f"{major}.{minor}")
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)

    def build(self, graph: Path, profiles: Sequence[Profile], timings: Path) -> bytes:
        """Return the plan of an ONNX file; see `PlanHost`.

        Raises:
            ExportError: TensorRT refuses.
        """
        trt = self._trt
        builder = trt.Builder(self._logger)
        # The graph says every type, so that a plan's arithmetic is what was checked.
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(graph)):
            reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise ExportError(f"TensorRT cannot read the graph: {reasons}")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        cache = self._timing_cache(config, timings)
        for profile in profiles:
            if config.add_optimization_profile(_shapes(builder, profile)) < 0:
                raise ExportError(f"TensorRT refuses the profile of width {profile.width}")
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ExportError("TensorRT made no plan; its messages are above")
        timings.write_bytes(bytes(cache.serialize()))
        return bytes(plan)

    def scorer(self, plan: bytes, manifest: Manifest) -> PlanScorer:
        """Return what scores pairs with a plan.

        Raises:
            ExportError: TensorRT does not load it.
        """
        engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise ExportError("TensorRT does not load the plan that it made; see above")
        return PlanScorer(engine, manifest)

    def _timing_cache(self, config: Any, timings: Path) -> Any:
        """Attach what was measured before, or nothing where it is of another version."""
        known = timings.read_bytes() if timings.exists() else b""
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache


class PlanScorer:
    """Scores pairs on the GPU, by width and up to `MAX_BATCH` a call, as Triton will."""

    def __init__(self, engine: Any, manifest: Manifest) -> None:
        """Take a loaded plan with one profile a width."""
        import torch

        self._context = engine.create_execution_context()
        self._inputs, self._output = manifest.inputs, manifest.output
        self._widths, self._pad = widths(manifest.max_length), padding(manifest)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n].

        Raises:
            ExportError: TensorRT failed.
        """
        scores = np.zeros(len(pairs), dtype=np.float32)
        for part in by_width(pairs, self._widths, MAX_BATCH):
            scores[part.places] = self._run([pairs[i] for i in part.places], part.width)
        return scores

    def _run(self, pairs: Sequence[TokenPair], width: int) -> Float32s:
        import torch

        feeds = padded(pairs, width, self._pad)
        context, stream = self._context, self._stream
        with torch.cuda.stream(stream):
            done = [
                context.set_optimization_profile_async(
                    self._widths.index(width), stream.cuda_stream
                )
            ]
            stream.synchronize()
            tensors = {name: torch.from_numpy(feeds[name]).cuda() for name in self._inputs}
            logits = torch.empty((len(pairs), 1), dtype=torch.float32, device="cuda")  # [B, 1]
            for name, tensor in tensors.items():
                done.append(context.set_input_shape(name, tuple(tensor.shape)))
                done.append(context.set_tensor_address(name, tensor.data_ptr()))
            done.append(context.set_tensor_address(self._output, logits.data_ptr()))
            if not (all(done) and context.execute_async_v3(stream.cuda_stream)):
                raise ExportError(f"TensorRT failed on {len(pairs)} pairs of {width} tokens")
            stream.synchronize()
        scores: Float32s = logits[:, 0].cpu().numpy()
        return scores


def _shapes(builder: Any, profile: Profile) -> Any:
    """Return TensorRT's form of a profile."""
    shapes = builder.create_optimization_profile()
    full = (profile.max_batch, profile.width)
    for name in profile.inputs:
        shapes.set_shape(name, (1, profile.width), full, full)
    return shapes
