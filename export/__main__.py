"""Command line of export: what each command does with its options."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.arguments import make_parser
from export.errors import ExportError
from export.hub import find_model
from service.contract.bundle import Bundle, BundleError

if TYPE_CHECKING:
    from export.triton_config import Device, Target


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 written, 2 refused, 130 stopped."""
    options = make_parser().parse_args(arguments)
    try:
        report = COMMANDS[options.command](options)
    except ModuleNotFoundError as error:
        extras = "export,triton" if options.command == "triton" else "export"
        print(f"error: {error.name} is not installed: pip install '.[{extras}]'", file=sys.stderr)
        return 2
    except (ExportError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BaseException as error:
        if not _came_of_ctrl_c(error):
            raise
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    print(json.dumps(report, indent=2))
    return 0


def _bundle(options: argparse.Namespace) -> dict[str, Any]:
    """Write a bundle and return the report."""
    from export.bundle import export_bundle, require_free  # slow to import: not for --help

    require_free(options.bundle, overwrite=options.overwrite)  # and not after a download
    checkpoint, source = Path(options.model), None
    if options.command == "from-hub":
        checkpoint, source = find_model(options.model, options.revision)
    done = export_bundle(
        checkpoint,
        options.bundle,
        name=options.name or options.bundle.name,
        precisions=tuple(dict.fromkeys(options.precision or ())),
        examples=options.examples,
        max_length=options.max_length,
        source=source,
        overwrite=options.overwrite,
    )
    for precision, failures in done.left_out.items():
        print(f"{precision} is left out, its gates failed: {'; '.join(failures)}", file=sys.stderr)
    manifest = done.bundle.manifest
    return {
        "bundle": str(done.bundle.root),
        "name": manifest.name,
        "version": manifest.version,
        "source": None if manifest.source is None else manifest.source.model_dump(),
        "size_bytes": sum(entry.size_bytes for entry in manifest.files.values()),
        "precisions": list(manifest.precisions),
        "left_out": done.left_out,
        "parity": {precision: found.as_dict() for precision, found in done.parity.items()},
    }


def _onnx(options: argparse.Namespace) -> dict[str, Any]:
    """Write a checkpoint's graph and return the report."""
    from export.graph import GraphForm, export_onnx

    parity = export_onnx(
        Path(options.model),
        options.graph,
        GraphForm("fp16" if options.fp16 else "fp32", options.plain),
        examples=options.examples,
        max_length=options.max_length,
        overwrite=options.overwrite,
    )
    return {
        "graph": str(options.graph),
        "size_bytes": options.graph.stat().st_size,
        "parity": {name: found.as_dict() for name, found in parity.items()},
    }


def _tensorrt(options: argparse.Namespace) -> dict[str, Any]:
    """Write a TensorRT plan and return the report."""
    from export.tensorrt import export_tensorrt
    from export.tensorrt_host import TensorRTHost

    bundle = Bundle.open(options.bundle)
    done = export_tensorrt(
        bundle,
        Path(options.model),
        options.plans,
        host=TensorRTHost(),
        precision=options.precision,
        quantised=options.graph,
        examples=options.examples,
        overwrite=options.overwrite,
    )
    return {"plan": str(done.folder), **done.card.model_dump(mode="json")}


def _triton(options: argparse.Namespace) -> dict[str, Any]:
    """Write a Triton model and return the report."""
    from export.triton import export_triton  # its parts are in extras: not for --help

    bundle = Bundle.open(options.bundle)
    target = _target(options, bundle)
    try:
        model = export_triton(
            bundle, options.repository, target, plan=options.plan, overwrite=options.overwrite
        )
    except OSError as error:
        raise ExportError(f"{options.repository} cannot be written: {error}") from error
    return {
        "model": str(model.folder),
        "name": model.name,
        "triton_version": model.version,
        "bundle_version": bundle.manifest.version,
        "precision": target.precision,
    }


def _target(options: argparse.Namespace, bundle: Bundle) -> Target:
    from export.tensorrt_plan import open_plan, visible_gpus
    from export.triton_config import Target

    if options.plan is None:
        device: Device = options.device or "cpu"
        usual = "fp16" if device == "gpu" else bundle.manifest.preferred_precision
        instances = _instances(options, device)
        return Target(device, options.precision or usual, instances, options.tensorrt)
    if options.device == "cpu" or options.precision or options.tensorrt:
        raise ExportError("--plan is for GPUs, has its precision, and runs without ONNX Runtime")
    card = open_plan(options.plan, bundle.manifest)
    card.refuse_elsewhere(visible_gpus())
    return Target("gpu", card.precision, _instances(options, "gpu"), plan=card)


def _instances(options: argparse.Namespace, device: Device) -> int:
    """Return how many copies run: on a GPU two, as Triton sleeps through work of one."""
    usual = 2 if device == "gpu" else 1
    return usual if options.instances is None else int(options.instances)


def _came_of_ctrl_c(error: BaseException | None) -> bool:
    """Tell whether an error is Ctrl-C, or what a library made of it on the way."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


COMMANDS = {
    "bundle": _bundle,
    "from-hub": _bundle,
    "onnx": _onnx,
    "tensorrt": _tensorrt,
    "triton": _triton,
}


if __name__ == "__main__":
    sys.exit(main())
