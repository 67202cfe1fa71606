"""Command line of export: `python -m export bundle`, for our checkpoints, and `from-hub`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from export.errors import ExportError
from export.hub import find_model

EPILOG = """\
examples:
  python -m export bundle runs/default/checkpoint models/mine
  python -m export from-hub cross-encoder/ms-marco-MiniLM-L6-v2 models/msmarco
  python -m service serve --bundle models/msmarco
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 written, 2 refused, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
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
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BaseException as error:
        if not _came_of_ctrl_c(error):
            raise
        print("stopped; no bundle was written", file=sys.stderr)
        return 130
    for precision, failures in done.left_out.items():
        print(f"{precision} is left out, its gates failed: {'; '.join(failures)}", file=sys.stderr)
    manifest = done.bundle.manifest
    report = {
        "bundle": str(done.bundle.root),
        "name": manifest.name,
        "version": manifest.version,
        "source": None if manifest.source is None else manifest.source.model_dump(),
        "size_bytes": sum(entry.size_bytes for entry in manifest.files.values()),
        "precisions": list(manifest.precisions),
        "left_out": done.left_out,
        "parity": {precision: found.as_dict() for precision, found in done.parity.items()},
    }
    print(json.dumps(report, indent=2))
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
