"""What runs the model that is served."""

from __future__ import annotations

import logging

from service.contract.bundle import Bundle
from service.contract.manifest import Precision
from service.contract.triton import TritonPrecision, model_name, padding, widths
from service.engines.engine import Runner
from service.engines.local import LocalEngine
from service.runtime import usable_cores
from service.scorers.bound import BoundScorer
from service.scorers.scorer import EngineName, choose_engine, load_scorer
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def choose_runner(settings: Settings, bundle: Bundle) -> Runner:
    """Return what the settings ask for.

    Raises:
        BundleError: The bundle has no such model, or the engine cannot run it.
        SettingsError: Something is not installed, or two settings contradict each other.
    """
    if settings.device == "cuda":
        return _cuda(settings, bundle)
    if settings.cuda_model is not None:
        raise SettingsError("cuda_model: is for the device cuda")
    return _triton(settings, bundle) if settings.engine == "triton" else _local(settings, bundle)


def local_engine(settings: Settings) -> EngineName | None:
    """Return the engine asked for, which must be one of this process.

    Raises:
        SettingsError: It is none.
    """
    if settings.engine == "triton":
        raise SettingsError("engine: triton is for serve; without a server, native and onnx run")
    return settings.engine


def local_precision(settings: Settings, bundle: Bundle) -> Precision:
    """Return the precision asked for, or the bundle's preferred one.

    Raises:
        BundleError: The bundle does not offer it.
        SettingsError: No engine of this process runs it.
    """
    if settings.precision == "fp16" or settings.precision == "fp8":
        raise SettingsError(
            f"precision: {settings.precision} is for GPUs: the engine triton, or the device cuda"
        )
    if settings.precision is not None:
        bundle.model_path(settings.precision)
        return settings.precision
    return bundle.manifest.preferred_precision


def _local(settings: Settings, bundle: Bundle) -> Runner:
    precision, wanted = local_precision(settings, bundle), local_engine(settings)
    name, not_native = choose_engine(bundle, precision, wanted)
    if not_native and wanted is None and precision == "int8":
        log.warning("a slower engine: %s", not_native)
    scorer = load_scorer(bundle, precision, engine=name, threads=1)
    workers = settings.threads or usable_cores()
    return Runner(name, LocalEngine(scorer, workers=workers), precision, workers)


def _cuda(settings: Settings, bundle: Bundle) -> Runner:
    """Run the bundle's fp32 model, or the one beside it, on the GPU."""
    if settings.engine not in (None, "onnx"):
        raise SettingsError(f"engine: {settings.engine} has no device cuda; onnx has")
    usual: TritonPrecision = "fp32" if settings.cuda_model is None else "fp16"
    precision = settings.precision or usual
    if precision not in ("fp32", usual):
        raise SettingsError(
            f"precision: the device cuda runs the bundle's fp32 or, with cuda_model, fp16; "
            f"not {precision}"
        )
    manifest = bundle.manifest
    model = settings.cuda_model or bundle.model_path("fp32")
    try:
        scorer = BoundScorer(model, widths=widths(manifest.max_length), pad=padding(manifest))
    except ValueError as error:
        raise SettingsError(str(error)) from error
    engine = LocalEngine(
        scorer,
        portion_tokens=settings.launch_of(manifest.max_length),
        padded_tokens=scorer.padded_tokens,
    )
    return Runner("onnx", engine, precision, concurrency=1)


def _triton(settings: Settings, bundle: Bundle) -> Runner:
    """Import Triton's client, which a service without it neither has nor pays for."""
    try:
        from service.engines.triton import TritonEngine
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"engine: {error.name} is not installed: pip install '.[triton]'"
        ) from error
    precision = settings.precision or bundle.manifest.preferred_precision
    if precision in ("fp32", "int8"):  # the others are made of the checkpoint, beside the bundle
        bundle.model_path(precision)
    engine = TritonEngine(
        settings.triton_url,
        model=settings.triton_model or model_name(bundle.manifest),
        manifest=bundle.manifest,
        precision=precision,
    )
    return Runner("triton", engine, precision, concurrency=1)
