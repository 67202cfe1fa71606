"""Commands that measure and compare; `options.run(options)` runs the one that was chosen."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.recipe import EvaluateRecipe, RecipeError, load_recipe


def add_commands(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare` and `scores` to a command line."""
    _add_compare(stages)
    _add_scores(stages)


def _add_compare(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "paired tests between systems, the first the baseline, or ΔGSB of judgements"
    command = stages.add_parser("compare", help=text, description=text)
    command.set_defaults(run=_compare)
    command.add_argument("recipe", type=Path, nargs="?", help="the judged sets, as for evaluate")
    command.add_argument("--data", type=Path, help="folder of the sets the recipe names")
    _add_models(command, "twice or more, the baseline first")
    command.add_argument(
        "--judgements", type=Path, help="JSON Lines of query_id, left, right, verdict"
    )
    command.add_argument("--json", type=Path, help="write the tests here, too")
    command.add_argument("--seed", type=int, default=0, help="default: 0")


def _compare(options: argparse.Namespace) -> int:
    from training.compare import compare, print_judgements

    if options.judgements is None and options.recipe is None:
        raise RecipeError("compare needs a recipe with --data and two --model, or --judgements")
    if options.recipe is not None:
        if options.data is None or len(options.model) < 2:
            raise RecipeError("compare needs --data and at least two --model beside the recipe")
        compare(
            load_recipe(options.recipe, EvaluateRecipe),
            data=options.data,
            models=options.model,
            json_to=options.json,
            seed=options.seed,
        )
    if options.judgements is not None:
        print_judgements(options.judgements)
    return 0


def _add_scores(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "report on the distributions and the calibration of several scorers' scores"
    command = stages.add_parser("scores", help=text, description=text)
    command.set_defaults(run=_scores)
    command.add_argument("recipe", type=Path, help="the judged sets, as for evaluate")
    command.add_argument(
        "--data", type=Path, required=True, help="folder of the sets the recipe names"
    )
    _add_models(command, "once or more")
    command.add_argument("--out", type=Path, required=True, help="folder of the report")


def _scores(options: argparse.Namespace) -> int:
    from training.scores import write_scores

    if not options.model:
        raise RecipeError("scores needs at least one --model")
    recipe = load_recipe(options.recipe, EvaluateRecipe)
    write_scores(recipe, data=options.data, models=options.model, out=options.out)
    print(options.out / "report.md")
    return 0


def _add_models(command: argparse.ArgumentParser, count: str) -> None:
    command.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help=f"checkpoint, bundle, labels or TREC run; {count}",
    )
