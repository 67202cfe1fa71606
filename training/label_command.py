"""The command line of `label`: here, or by the teachers of a Ray cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.recipe import LabelRecipe, RecipeError, load_recipe


def add_label_options(stage: argparse.ArgumentParser) -> None:
    """Add what only `label` is told."""
    stage.add_argument(
        "--ray", action="store_true", help="score on Ray: one started here, or --ray-address"
    )
    stage.add_argument(
        "--ray-address", help="cluster that this machine belongs to, such as auto; implies --ray"
    )
    stage.add_argument(
        "--actors", type=int, help="teachers on Ray; default: one a GPU, without any one a core"
    )
    stage.add_argument(
        "--gpus-per-actor", type=float, help="up to 1; default: 1 where the cluster has any"
    )


def run_label(options: argparse.Namespace) -> Path:
    """Label, and return the folder.

    Raises:
        RecipeError: The recipe, an input or the cluster cannot be used.
    """
    from training.label import label
    from training.ray_label import Pool

    pool = None
    if options.ray or options.ray_address is not None:
        pool = Pool(options.ray_address, options.actors, options.gpus_per_actor)
    elif options.actors is not None or options.gpus_per_actor is not None:
        raise RecipeError("--actors and --gpus-per-actor are for --ray")
    recipe = load_recipe(options.recipe, LabelRecipe)
    return label(recipe, data=options.data, out=options.out, restart=options.restart, pool=pool)
