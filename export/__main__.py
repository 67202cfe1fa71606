"""Command line of export: `python -m export bundle CHECKPOINT BUNDLE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from export.errors import ExportError

EPILOG = """\
example:
  python -m export bundle runs/default/checkpoint models/mine --name mine
  python -m service serve --bundle models/mine

CHECKPOINT is a Hugging Face folder of a BERT with one label, or a decoder teacher that
`python -m training sft` wrote. One written by `training` brings its lengths, calibration and
parity pairs along.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 written, 2 refused, 130 stopped."""
    options = _parser().parse_args(arguments)
    try:
        from export.bundle import export_bundle  # torch is slow to import: not for --help

        done = export_bundle(
            options.checkpoint,
            options.bundle,
            name=options.name or options.bundle.name,
            precisions=tuple(dict.fromkeys(options.precision or ())),
            examples=options.examples,
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
    manifest = done.bundle.manifest
    report = {
        "bundle": str(done.bundle.root),
        "name": manifest.name,
        "version": manifest.version,
        "size_bytes": sum(entry.size_bytes for entry in manifest.files.values()),
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
        description="Turn a checkpoint into a served bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bundle = commands.add_parser(
        "bundle",
        help="export, quantise, check and write a bundle",
        description="Export, quantise, hold against the parity gates and write a bundle.",
    )
    bundle.add_argument(
        "checkpoint", type=Path, help="Hugging Face folder of the student or teacher"
    )
    bundle.add_argument("bundle", type=Path, help="directory to write")
    bundle.add_argument("--name", help="the bundle's name; default: the directory's")
    bundle.add_argument(
        "--precision",
        action="append",
        choices=("fp32", "int8"),
        help="model to put in, may be repeated; default: both, for a decoder fp32, its only one",
    )
    bundle.add_argument(
        "--examples",
        type=Path,
        help="JSON Lines of queries with candidates for the parity report; "
        "default: the checkpoint's validation.jsonl",
    )
    bundle.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


if __name__ == "__main__":
    sys.exit(main())
