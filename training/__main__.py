"""Command line of training: `python -m training STAGE RECIPE --data DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from training.commands import add_commands
from training.label_command import add_label_options, run_label
from training.recipe import DistillRecipe, EvaluateRecipe, RecipeError, load_recipe
from training.retrieval_recipe import RetrieveRecipe
from training.teacher_recipes import CptRecipe, SftRecipe

MEASURING = ("evaluate", "compare", "scores", "latency", "speed")  # nothing to go on with

EPILOG = """\
example:
  python -m training cpt      training/recipes/small-cpt.toml --data DATA
  python -m training sft      training/recipes/small-sft.toml --data DATA
  python -m training retrieve training/recipes/default-candidates.toml --data DATA
  python -m training label training/recipes/default-labels.toml --data DATA
  python -m training distill training/recipes/default.toml --data DATA
  python -m training evaluate training/recipes/evaluate.toml --data DATA --model models/default
  python -m training compare training/recipes/evaluate.toml --data DATA --model A --model B

DATA is a folder of judged sets, each with corpus.jsonl.gz, queries.tsv and qrels.tsv. A stage
that was stopped, by Ctrl-C or a power cut, goes on where it was when it is started again.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a stage and return the exit status: 0 done, 2 unusable recipe or input."""
    options = _parser().parse_args(arguments)
    try:
        match options.stage:
            case "cpt":
                from training.cpt import cpt  # torch is slow to import: only when needed

                folder = cpt(load_recipe(options.recipe, CptRecipe), **_run(options))
            case "sft":
                from training.sft import sft

                folder = sft(load_recipe(options.recipe, SftRecipe), **_run(options))
            case "retrieve":
                from training.retrieve import retrieve

                found = load_recipe(options.recipe, RetrieveRecipe)
                folder = retrieve(
                    found, data=options.data, out=options.out, restart=options.restart
                )
            case "label":
                folder = run_label(options)
            case "distill":
                from training.distill import distill

                folder = distill(load_recipe(options.recipe, DistillRecipe), **_run(options))
            case "compare" | "scores" | "latency" | "speed":
                done: int = options.run(options)
                return done
            case _:
                from training.report import Outputs, report

                sets = load_recipe(options.recipe, EvaluateRecipe)
                report(
                    sets,
                    data=options.data,
                    model=options.model,
                    precision=options.precision,
                    outputs=Outputs(options.json, options.runs_to),
                )
                return 0
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = (
            ""
            if options.stage in ("evaluate", "compare")
            else "; without --restart it goes on from there"
        )
        print(f"stopped{hint}", file=sys.stderr)
        return 130
    print(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train a ranking teacher, and distil it into a small BERT.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text in (
        ("cpt", "continue a language model's pre-training on clicks"),
        ("sft", "fine-tune a language model into a ranking teacher"),
        ("retrieve", "find candidates for queries that nobody judged"),
        ("label", "score pairs with a teacher into Parquet shards"),
        ("distill", "train a student on teachers' scores"),
        ("evaluate", "nDCG, MRR and PNR of a checkpoint or a bundle"),
    ):
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("recipe", type=Path, help="TOML file, see training/recipes/")
        stage.add_argument(
            "--data", type=Path, required=True, help="folder of the sets the recipe names"
        )
        if name == "evaluate":
            stage.add_argument(
                "--model", type=Path, required=True, help="checkpoint, bundle, labels or TREC run"
            )
            stage.add_argument(
                "--precision",
                choices=("fp32", "int8"),
                help="model of the bundle; default: int8 where it is offered, as served",
            )
            stage.add_argument("--json", type=Path, help="write the figures here, too")
            stage.add_argument("--runs-to", type=Path, help="write TREC runs and qrels here, too")
        else:
            stage.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
            stage.add_argument(
                "--restart", action="store_true", help="throw an earlier run of this name away"
            )
        if name == "label":
            add_label_options(stage)
        if name in ("cpt", "sft", "distill"):
            stage.add_argument(
                "--tensorboard", action="store_true", help="write logs to the run's folder"
            )
    add_commands(stages)
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Return what every training stage is told beside its recipe."""
    return {
        "data": options.data,
        "out": options.out,
        "restart": options.restart,
        "tensorboard": options.tensorboard,
    }


if __name__ == "__main__":
    sys.exit(main())
