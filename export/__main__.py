"""Command line of export: `bundle`, for our checkpoints, `from-hub`, and `triton`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.hub import find_model
from service.contract.bundle import Bundle, BundleError

EPILOG = """\
examples:
  python -m export bundle runs/default/checkpoint models/mine
  python -m export from-hub cross-encoder/ms-marco-MiniLM-L6-v2 models/msmarco
  python -m service serve --bundle models/msmarco
  python -m export triton models/msmarco repository
"""
OURS = """\
CHECKPOINT is the folder that `training distill` or `training sft` wrote: it brings its lengths,
calibration and parity pairs along.
"""
THEIRS = """\
NAME is that of a cross-encoder with one label on the Hugging Face hub, or its folder: a BERT, an
ELECTRA, a (XLM-)RoBERTa, a DistilBERT, a ModernBERT, a DeBERTa-v2, an MPNet. Nothing is known of
its calibration: `relevance` is sigmoid(score).
"""
TRITON = """\
Serve the repository with Triton, and the same bundle with
`python -m service serve --engine triton --bundle BUNDLE --triton-url HOST:8001`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 written, 2 refused, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        report = _triton(options) if options.command == "triton" else _bundle(options)
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
    checkpoint, source = Path(options.model), None
    if options.command == "from-hub":
        checkpoint, source = find_model(options.model, options.revision)
    from export.bundle import export_bundle  # torch is slow to import: not for --help

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


def _triton(options: argparse.Namespace) -> dict[str, Any]:
    """Write a Triton model and return the report."""
    from export.triton import export_triton  # its parts are in extras: not for --help
    from export.triton_config import Target

    bundle = Bundle.open(options.bundle)
    usual = "fp16" if options.device == "gpu" else bundle.manifest.preferred_precision
    target = Target(options.device, options.precision or usual, options.instances, options.tensorrt)
    try:
        model = export_triton(bundle, options.repository, target, overwrite=options.overwrite)
    except OSError as error:
        raise ExportError(f"{options.repository} cannot be written: {error}") from error
    return {
        "model": str(model.folder),
        "name": model.name,
        "triton_version": model.version,
        "bundle_version": bundle.manifest.version,
        "precision": target.precision,
    }


def _came_of_ctrl_c(error: BaseException | None) -> bool:
    """Tell whether an error is Ctrl-C, or what a library made of it on the way."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Turn a model into a served bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    ours = commands.add_parser(
        "bundle",
        help="export, quantise, check and write a checkpoint of ours",
        description="Export, quantise, hold against the parity gates and write a bundle.",
        epilog=OURS,
    )
    ours.add_argument(
        "model", type=Path, metavar="CHECKPOINT", help="folder of the student or teacher"
    )
    theirs = commands.add_parser(
        "from-hub",
        help="the same for a cross-encoder that somebody else made",
        description="Download a model and do with it what `bundle` does with ours.",
        epilog=THEIRS,
    )
    theirs.add_argument("model", metavar="NAME", help="its name on the hub, or a folder")
    theirs.add_argument(
        "--revision", help="commit, tag or branch on the hub; default: its main branch as it is"
    )
    for command in (ours, theirs):
        _add_options(command)
    _add_triton(commands)
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory to write")
    command.add_argument("--name", help="the bundle's name; default: the directory's")
    command.add_argument(
        "--precision",
        action="append",
        choices=("fp32", "int8"),
        help="model to put in, may be repeated; default: fp32, and int8 if it passes its gates "
        "(a decoder has fp32 only)",
    )
    command.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="longest pair; default: the checkpoint's own, else 256 or what the model can",
    )
    command.add_argument(
        "--examples",
        type=Path,
        help="JSON Lines of queries with candidates for the parity report; "
        "default: the checkpoint's validation.jsonl, else the golden pairs",
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing bundle")


def _add_triton(commands: Any) -> None:
    command = commands.add_parser(
        "triton",
        help="write a bundle's model into a Triton model repository",
        description="Write a model repository for NVIDIA Triton from a bundle's manifest.",
        epilog=TRITON,
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    command.add_argument(
        "repository", type=Path, metavar="REPOSITORY", help="directory of Triton's models"
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="model to serve; default: fp16, made of fp32, for GPUs, else int8 where it is offered",
    )
    command.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="what runs it; default: cpu"
    )
    command.add_argument(
        "--instances",
        type=int,
        default=1,
        metavar="N",
        help="copies that run side by side; default: 1",
    )
    command.add_argument(
        "--tensorrt",
        action="store_true",
        help="have ONNX Runtime hand what it can to TensorRT; engines are built at the first start",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace the model of the same bundle"
    )


if __name__ == "__main__":
    sys.exit(main())
