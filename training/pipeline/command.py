"""The pipeline command: plan, run or report."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from training.pipeline.needed import require_data
from training.pipeline.pipeline import Pipeline
from training.pipeline.run import StepError, print_plan, run


def run_command(
    file: Path, *, data: Path, out: Path, restart: bool, dry_run: bool, report_only: bool
) -> int:
    """Run a pipeline's recipe and return the exit status: 0 done, 1 a stage failed, 130 stopped.

    Args:
        file: The pipeline's recipe.
        data: Folder of the sets that its recipes name.
        out: Folder of runs; everything goes to `out/<name>`.
        restart: Throw everything of an earlier run away.
        dry_run: Print the plan only.
        report_only: Write the report on what is finished, and run nothing.

    Raises:
        RecipeError: A recipe cannot be used, or data is missing; nothing has run then.
    """
    pipeline = Pipeline.load(file, data=data, out=out)
    if not report_only:
        require_data(pipeline)
    if dry_run:
        print_plan(pipeline)
        return 0
    if report_only:
        from training.pipeline.report import write_report

        print(write_report(pipeline))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    try:
        run(pipeline, restart=restart)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    print(pipeline.folder)
    return 0
