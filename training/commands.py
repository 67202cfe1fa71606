"""Commands beside the stages; `options.run(options)` runs the one that was chosen."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.recipe import (
    DistillRecipe,
    EvaluateRecipe,
    LabelRecipe,
    RecipeError,
    load_recipe,
)

SYSTEMS = "checkpoint, bundle, labels, TREC run or PROMPTING.toml; bm25; bi-encoder:FOLDER"


def add_commands(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `pipeline`, `evaluate`, `compare`, `tables`, `scores`, `latency` and `speed`."""
    _add_pipeline(stages)
    _add_evaluate(stages)
    _add_compare(stages)
    _add_tables(stages)
    _add_scores(stages)
    _add_latency(stages)
    _add_speed(stages)


def _add_pipeline(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "run the stages of a whole experiment that are not finished, and report"
    command = stages.add_parser("pipeline", help=text, description=text)
    command.set_defaults(run=_pipeline)
    command.add_argument("recipe", type=Path, help="TOML file of stages, see docs/pipeline.md")
    _add_data(command)
    command.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--restart", action="store_true", help="throw everything of it away first")
    how.add_argument("--dry-run", action="store_true", help="say what would be run")
    how.add_argument(
        "--report-only", action="store_true", help="write the report on what is finished"
    )


def _pipeline(options: argparse.Namespace) -> int:
    from training.pipeline.command import run_command

    return run_command(
        options.recipe,
        data=options.data,
        out=options.out,
        restart=options.restart,
        dry_run=options.dry_run,
        report_only=options.report_only,
    )


def _add_evaluate(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "nDCG, MRR and PNR of a checkpoint or a bundle"
    command = stages.add_parser("evaluate", help=text, description=text)
    command.set_defaults(run=_evaluate)
    command.add_argument("recipe", type=Path, help="the judged sets, see training/recipes/")
    _add_data(command)
    command.add_argument("--model", type=Path, required=True, help=SYSTEMS)
    command.add_argument(
        "--precision",
        choices=("fp32", "int8"),
        help="model of the bundle; default: int8 where it is offered, as served",
    )
    command.add_argument("--json", type=Path, help="write the figures here, too")
    command.add_argument("--runs-to", type=Path, help="write TREC runs and qrels here, too")


def _evaluate(options: argparse.Namespace) -> int:
    from training.report import Outputs, report

    report(
        load_recipe(options.recipe, EvaluateRecipe),
        data=options.data,
        model=options.model,
        precision=options.precision,
        outputs=Outputs(options.json, options.runs_to),
    )
    return 0


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


def _add_tables(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "DisRanker's tables 2 and 3 with our own systems' figures beside the printed ones"
    command = stages.add_parser("tables", help=text, description=text)
    command.set_defaults(run=_tables)
    command.add_argument("recipe", type=Path, help="TOML file of sets and rows")
    _add_data(command)
    command.add_argument("--json", type=Path, help="write our figures here, too")


def _tables(options: argparse.Namespace) -> int:
    from training.baselines.paper_table import TableRecipe, write_tables

    write_tables(load_recipe(options.recipe, TableRecipe), data=options.data, json_to=options.json)
    return 0


def _add_scores(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "report on the distributions and the calibration of several scorers' scores"
    command = stages.add_parser("scores", help=text, description=text)
    command.set_defaults(run=_scores)
    command.add_argument("recipe", type=Path, help="the judged sets, as for evaluate")
    _add_data(command)
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


def _add_latency(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "time a decoder, a 12-layer and a 6-layer BERT with random weights on this device"
    command = stages.add_parser("latency", help=text, description=text)
    command.set_defaults(run=_latency)
    command.add_argument(
        "--sizes",
        choices=("paper", "small", "students"),
        help="7B, BERT-12 and BERT-6; small ones; BERT-12 and what it is distilled into; default: "
        "paper on a GPU, small on a CPU",
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        nargs="+",
        default=[],
        help="default: bf16 on a GPU, fp32 on a CPU",
    )
    command.add_argument("--batch", type=_count, help="pairs a call; default: 48, small: 8")
    command.add_argument("--length", type=_count, help="tokens a pair; default: 256, small: 64")
    command.add_argument("--rounds", type=_count, default=20, help="default: 20")
    command.add_argument("--price-per-hour", type=float, help="of the machine, in any currency")
    command.add_argument("--json", type=Path, help="write every round's time here, too")


def _latency(options: argparse.Namespace) -> int:
    from training.latency_table import latency_table

    latency_table(
        sizes=options.sizes,
        precisions=options.precision,
        batch=options.batch,
        length=options.length,
        rounds=options.rounds,
        price_per_hour=options.price_per_hour,
        json_to=options.json,
    )
    return 0


def _add_speed(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "time labelling or distilling beside a bare loop on the same batches"
    command = stages.add_parser("speed", help=text, description=text)
    command.set_defaults(run=_speed)
    command.add_argument("what", choices=("label", "distill"), help="the stage to time")
    command.add_argument("recipe", type=Path, help="TOML file of that stage")
    _add_data(command)
    command.add_argument("--shards", type=_count, default=1, help="label: shards a round; 1")
    command.add_argument(
        "--rounds", type=_count, default=10, help="label: repeats, distill: steps; default: 10"
    )


def _speed(options: argparse.Namespace) -> int:
    from training.speed import distill_speed, label_speed

    if options.what == "label":
        recipe = load_recipe(options.recipe, LabelRecipe)
        speed = label_speed(recipe, data=options.data, shards=options.shards, rounds=options.rounds)
    else:
        student = load_recipe(options.recipe, DistillRecipe)
        speed = distill_speed(student, data=options.data, rounds=options.rounds)
    print(speed)
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, required=True, help="folder of the sets the recipe names"
    )


def _add_models(command: argparse.ArgumentParser, count: str) -> None:
    command.add_argument(
        "--model",
        type=Path,
        action="append",
        default=[],
        help=f"{SYSTEMS}; {count}",
    )
