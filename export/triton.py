"""Bundle to Triton model repository."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.fp16 import write_fp16
from export.tensorrt_plan import PLAN
from export.triton_config import Target, config_text
from service.contract.bundle import Bundle, BundleError
from service.contract.folder import replaced_folder, restore_folder
from service.contract.manifest import Precision
from service.contract.triton import model_name, tolerance

CONFIG = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class TritonModel:
    """A model written into a repository.

    Attributes:
        folder: The model's folder, named like the model.
        version: Its number in Triton, one more than that of the export before.
    """

    folder: Path
    version: int

    @property
    def name(self) -> str:
        """What Triton calls it."""
        return self.folder.name


def export_triton(
    bundle: Bundle,
    repository: Path,
    target: Target,
    *,
    plan: Path | None = None,
    overwrite: bool = False,
) -> TritonModel:
    """Write a bundle's model and its configuration into a repository.

    Bundles of other content have models of other names, so that a repository holds those that
    services move from and to. An overwritten model gets the next number, and Triton told to load it
    again answers from the one before until the new one is ready.

    Args:
        bundle: The opened bundle.
        repository: The repository, made where it is missing.
        target: What the model is to run on.
        plan: Folder of the target's plan, where it has one.
        overwrite: Replace the model of the same bundle.

    Raises:
        ExportError: The bundle does not have the model, the target makes no sense, or the model is
            there already.
        OSError: The disk refused; the repository is as it was.
    """
    _check(bundle, target)
    folder = repository / model_name(bundle.manifest)
    restore_folder(folder)
    if folder.exists() and not overwrite:
        raise ExportError(f"{folder} exists; --overwrite replaces it")
    version = _latest(folder) + 1
    with replaced_folder(folder) as scratch:
        inside = scratch / str(version)
        inside.mkdir()
        if plan is None:
            _write_model(bundle, target, inside)
        else:
            shutil.copyfile(plan / PLAN, inside / PLAN)
        weights_bytes = sum(path.stat().st_size for path in inside.iterdir())
        config = config_text(bundle.manifest, target, weights_bytes=weights_bytes)
        (scratch / CONFIG).write_text(config, encoding="utf-8")
    return TritonModel(folder, version)


def _check(bundle: Bundle, target: Target) -> None:
    if target.instances < 1:
        raise ExportError(f"instances: {target.instances} is none; at least 1")
    if target.device == "cpu" and (target.tensorrt or target.precision == "fp16"):
        wanted = "TensorRT" if target.tensorrt else "fp16"
        raise ExportError(f"{wanted} is for GPUs: --device gpu")
    if target.plan is not None:
        return
    if target.precision == "fp8":
        raise ExportError("fp8 is for TensorRT plans: --plan")
    if target.device == "gpu" and target.precision == "int8":
        raise ExportError("the int8 model is made of CPUs' operators; a GPU takes fp16 or fp32")
    try:
        model = bundle.model_path(_source(target))
    except BundleError as error:
        raise ExportError(f"{error}{_remedy(target)}") from None
    if target.tensorrt:
        _require_whole(model)


def _require_whole(model: Path) -> None:
    """Pass where TensorRT may take a graph whole.

    Of a divided one, ONNX Runtime wants profiles of every part's inputs too, which have no names of
    ours, and does not load it.
    """
    import onnx

    nodes = onnx.load(model, load_external_data=False).graph.node
    if own := sorted({node.op_type for node in nodes if node.domain not in ("", "ai.onnx")}):
        raise ExportError(
            f"--tensorrt: {model} has operators of ONNX Runtime's own ({', '.join(own)}), which "
            "TensorRT does not take: make a plan with export tensorrt, and give it by --plan"
        )


def _remedy(target: Target) -> str:
    """Return what to do about a bundle without a GPU's model."""
    if target.device == "cpu":
        return ""
    return (
        "; a GPU's is made of fp32: export the bundle's checkpoint again, with "
        "`python -m export bundle CHECKPOINT BUNDLE --precision fp32`"
    )


def _source(target: Target) -> Precision:
    return "int8" if target.precision == "int8" else "fp32"


def _latest(folder: Path) -> int:
    """Return the highest version in a model's folder, 0 where there is none."""
    if not folder.is_dir():
        return 0
    return max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)


def _write_model(bundle: Bundle, target: Target, folder: Path) -> None:
    source = _source(target)
    if target.precision == "fp16":
        allowed = tolerance(bundle.manifest, bundle.golden, "fp16")
        write_fp16(bundle, folder / target.model_file, tolerance=allowed)
        return
    shutil.copyfile(bundle.model_path(source), folder / target.model_file)
    weights = bundle.weights_path(source)
    if weights is not None:  # the graph names them
        shutil.copyfile(weights, folder / weights.name)
