"""The options of export's commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  python -m export bundle runs/default/checkpoint models/mine
  python -m export from-hub cross-encoder/ms-marco-MiniLM-L6-v2 models/msmarco
  python -m service serve --bundle models/msmarco
  python -m export triton models/msmarco repository
  python -m export onnx runs/default/checkpoint model.onnx --fp16
  python -m export tensorrt models/mine runs/default/checkpoint plans
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
ONNX = """\
Without --plain the graph is of ONNX Runtime's own operators, for its CUDA provider; with it of
ONNX's, for TensorRT and others. `python -m service serve --device cuda` takes the former.
"""
TENSORRT = """\
CHECKPOINT is what the bundle was made of. Make the plan on the GPU and with the TensorRT that will
run it (inside Triton's own image, for Triton), then
`python -m export triton BUNDLE REPOSITORY --plan PLANS/NAME`.
"""
TRITON = """\
Serve the repository with Triton, and the same bundle with
`python -m service serve --engine triton --bundle BUNDLE --triton-url HOST:8001`.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
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
    _add_onnx(commands)
    _add_tensorrt(commands)
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
    _add_max_length(command)
    _add_examples(command)
    command.add_argument("--overwrite", action="store_true", help="replace an existing bundle")


def _add_max_length(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="longest pair; default: the checkpoint's own, else 256 or what the model can",
    )


def _add_examples(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--examples",
        type=Path,
        help="JSON Lines of queries with candidates for the parity report; "
        "default: the checkpoint's validation.jsonl, else the golden pairs",
    )


def _add_onnx(commands: Any) -> None:
    command = commands.add_parser(
        "onnx",
        help="write a checkpoint's graph alone, for GPUs and other runtimes",
        description="Export a checkpoint, hold it against the parity gates and write one ONNX "
        "file, weights included.",
        epilog=ONNX,
    )
    command.add_argument("model", type=Path, metavar="CHECKPOINT", help="the model's folder")
    command.add_argument("graph", type=Path, metavar="GRAPH", help="ONNX file to write")
    command.add_argument("--fp16", action="store_true", help="in half precision; default: fp32")
    command.add_argument(
        "--plain", action="store_true", help="of ONNX's standard operators alone; default: fused"
    )
    _add_max_length(command)
    _add_examples(command)
    command.add_argument("--overwrite", action="store_true", help="replace the file")


def _add_tensorrt(commands: Any) -> None:
    command = commands.add_parser(
        "tensorrt",
        help="make a bundle's TensorRT plan, on a GPU host",
        description="Make a TensorRT plan for this host's GPU, one profile a width, and hold it "
        "against the parity gates there.",
        epilog=TENSORRT,
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's directory")
    command.add_argument(
        "model", type=Path, metavar="CHECKPOINT", help="folder that the bundle was made of"
    )
    command.add_argument(
        "plans", type=Path, metavar="PLANS", help="folder of plans; this one gets its own in it"
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "fp8"),
        default="fp16",
        help="of the plan; default: %(default)s",
    )
    command.add_argument(
        "--graph",
        type=Path,
        metavar="QDQ",
        help="for int8 and fp8: the checkpoint's ONNX graph with calibrated Q/DQ nodes, as "
        "NVIDIA's ModelOpt writes them",
    )
    _add_examples(command)
    command.add_argument("--overwrite", action="store_true", help="replace the plan")


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
        "--device", choices=("cpu", "gpu"), help="what runs it; default: cpu, with --plan gpu"
    )
    command.add_argument(
        "--instances",
        type=int,
        metavar="N",
        help="copies that run side by side; default: 2 on a GPU, 1 on a CPU",
    )
    command.add_argument(
        "--tensorrt",
        action="store_true",
        help="have ONNX Runtime hand the model to TensorRT, where its graph is of standard "
        "operators (a BERT's is not); engines are built at the first start",
    )
    command.add_argument(
        "--plan",
        type=Path,
        metavar="FOLDER",
        help="plan of `export tensorrt`, which Triton's TensorRT backend runs",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace the model of the same bundle"
    )
