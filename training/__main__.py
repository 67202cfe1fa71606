"""Command line of training: `python -m training STAGE RECIPE --data DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from training.commands import add_commands
from training.label_command import add_label_options, run_label
from training.recipe import RecipeError, load_recipe
from training.stages import RECIPES, run_stage

EPILOG = """\
example:
  python -m training cpt      training/recipes/small-cpt.toml --data DATA
  python -m training sft      training/recipes/small-sft.toml --data DATA
  python -m training retrieve training/recipes/default-candidates.toml --data DATA
  python -m training label training/recipes/default-labels.toml --data DATA
  python -m training distill training/recipes/default-general.toml --data DATA
  python -m training distill training/recipes/default.toml --data DATA
  python -m training evaluate training/recipes/evaluate.toml --data DATA --model models/default
  python -m training compare training/recipes/evaluate.toml --data DATA --model A --model B
  python -m training pipeline training/recipes/laptop.toml --data DATA

DATA is a folder of judged sets, each with corpus.jsonl.gz, queries.tsv and qrels.tsv. A stage
that was stopped, by Ctrl-C or a power cut, goes on where it was when it is started again.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a stage and return the exit status: 0 done, 2 unusable recipe or input."""
    options = _parser().parse_args(arguments)
    try:
        if options.stage == "label":
            print(run_label(options))
            return 0
        if options.stage in RECIPES:
            recipe = load_recipe(options.recipe, RECIPES[options.stage])
            print(run_stage(options.stage, recipe, **_given(options)))
            return 0
        done: int = options.run(options)
        return done
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; without --restart it goes on from there" if options.stage in RECIPES else ""
        print(f"stopped{hint}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train a ranking teacher, and distil it into a small BERT.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text in (
        ("scratch", "make a small language model with random weights and its tokenizer"),
        ("cpt", "continue a language model's pre-training on clicks"),
        ("sft", "fine-tune a language model into a ranking teacher"),
        ("retrieve", "find candidates for queries that nobody judged"),
        ("select", "keep the first and the last documents of a pre-ranker (RRADistill)"),
        ("label", "score pairs with a teacher into Parquet shards"),
        ("reasons", "have a language model say why documents were ranked so (RRADistill)"),
        ("rra_gpt", "train a decoder to rank, and to say why (RRADistill)"),
        ("distill", "train a student on teachers' scores"),
        ("layerwise", "train a shallower BERT on another's layers"),
        ("average", "average the weights of students that started alike"),
    ):
        stage = stages.add_parser(name, help=text, description=text)
        stage.add_argument("recipe", type=Path, help="TOML file, see training/recipes/")
        stage.add_argument(
            "--data", type=Path, required=True, help="folder of the sets the recipe names"
        )
        stage.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
        stage.add_argument(
            "--restart", action="store_true", help="throw an earlier run of this name away"
        )
        if name == "label":
            add_label_options(stage)
        if name in ("cpt", "sft", "rra_gpt", "distill", "layerwise"):
            stage.add_argument(
                "--tensorboard", action="store_true", help="write logs to the run's folder"
            )
    add_commands(stages)
    return parser


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a stage is told beside its recipe."""
    return {name: value for name, value in vars(options).items() if name not in ("stage", "recipe")}


if __name__ == "__main__":
    sys.exit(main())
