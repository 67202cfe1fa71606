"""`python -m service rollout`: the decider, and what people may tell it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from functools import partial
from pathlib import Path
from time import sleep, time
from typing import Any

from rich.console import Console

from service.logs import configure_logging
from service.rollout.config_map import ConfigMap, KubernetesApi, in_cluster, tell
from service.rollout.controller import Controller
from service.rollout.orders import ORDERS, START, Order, OrderError, read_flags
from service.rollout.parity import PARITY_LESS, parity_bounds
from service.rollout.progress import Rollout
from service.rollout.source import InstanceSource, PrometheusSource, Source
from service.rollout.store import Store
from service.rollout.view import view

log = logging.getLogger(__name__)


def add_rollout(commands: Any) -> None:
    """Add the command and its own commands to a parser's."""
    text = "Decide on a canary: run decides, the others look or tell it what to do."
    rollout = commands.add_parser("rollout", description=text, help=text.split(":")[0])
    parts = rollout.add_subparsers(
        required=True, metavar="run | status | start | hold | promote | rollback"
    )
    _add_run(parts)
    _part(parts, "status", _status, "Show where the rollout is.")
    for order in ORDERS:
        _add_order(parts, order)


def _add_run(parts: Any) -> None:
    part = _part(
        parts,
        "run",
        _run,
        "Read metrics, decide, write the canary's weight to weights.json in the folder, until "
        "stopped. One process a folder. Replicas follow the file: serve --rollout-weights FILE.",
    )
    sources = part.add_mutually_exclusive_group(required=True)
    sources.add_argument("--metrics", metavar="URL", help="/metrics of the one instance.")
    sources.add_argument("--prometheus", metavar="URL", help="Base URL of a Prometheus.")
    part.add_argument(
        "--selector",
        default="",
        metavar="MATCHERS",
        help='Which series in Prometheus, namespace="search" for one.',
    )
    part.add_argument("--key-file", type=Path, metavar="FILE", help="Holds the bearer key for it.")
    part.add_argument(
        "--config-map",
        metavar="NAMESPACE/NAME",
        help="A ConfigMap to hold the text of weights.json too, for the replicas of a cluster.",
    )
    part.add_argument(
        "--kubernetes-api",
        metavar="URL",
        help="Where it is, as kubectl proxy has it. By default the cluster's that this runs in.",
    )
    part.add_argument(
        "--every-s", type=_positive, default=15.0, metavar="S", help="Time between looks. 15."
    )


def _add_order(parts: Any, order: Order) -> None:
    """Add a command with a flag a field; only those that are given are in its options, as text."""
    part = _part(parts, order.name, partial(_tell, order), order.text)
    for name, field in order.request.model_fields.items():
        part.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            type=_list if name == "steps" else str,
            metavar="VALUE",
            help=f"{field.description} Default: {_shown(field.default)}.",
        )
    if order is START:
        part.add_argument(
            "--parity",
            type=Path,
            metavar="FILE",
            help="A bundle's manifest.json: --min-tau-b and --min-overlap-10 are what its parity "
            f"report has, less {PARITY_LESS}. For the same model in another precision.",
        )


def _run(options: dict[str, Any]) -> int:
    store = Store(options["folder"])
    key = options["key_file"].read_text().strip() if options["key_file"] else None
    source: Source
    if options["metrics"]:
        source = InstanceSource(options["metrics"], key=key)
    else:
        source = PrometheusSource(options["prometheus"], selector=options["selector"], key=key)
    config_map = _config_map(options["config_map"], options["kubernetes_api"])
    with store.deciding():
        configure_logging("info")
        # As the first process of a container it would not even end by itself.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        state = store.restore()
        fields = {"status": state.status, "weight": state.weight, "generation": state.generation}
        log.info("deciding", extra={"fields": fields})
        controller = Controller(store, source, clock=time)
        try:
            while True:
                rollout = controller.step()
                if config_map is not None:
                    tell(config_map, rollout, store)
                sleep(options["every_s"])
        except KeyboardInterrupt:
            return 0


def _config_map(place: str | None, url: str | None) -> ConfigMap | None:
    if url is not None and (place is None or not url.startswith(("http://", "https://"))):
        raise OrderError(f"--kubernetes-api: wants --config-map and an http URL, got {url!r}")
    if place is None:
        return None
    return ConfigMap(place, KubernetesApi(url) if url else in_cluster(os.environ))


def _tell(order: Order, options: dict[str, Any]) -> int:
    store, parity = Store(options.pop("folder")), options.pop("parity", None)
    if parity is not None:
        bounds = parity_bounds(parity)
        options = {"min_tau_b": bounds.tau_b, "min_overlap_10": bounds.overlap_10, **options}
    asked = read_flags(order.request, options)
    return _show(store.change(partial(order.change, **asked.arguments, now=time())))


def _status(options: dict[str, Any]) -> int:
    return _show(Store(options["folder"]).load())


def _show(rollout: Rollout) -> int:
    Console().print(view(rollout, now=time()))
    return 0


def _part(parts: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    part: argparse.ArgumentParser = parts.add_parser(
        name, description=text, help=text.split(".")[0]
    )
    part.set_defaults(command=run)
    part.add_argument(
        "--folder", type=Path, default=Path("rollout"), help="Where the state is. rollout."
    )
    return part


def _list(text: str) -> list[str]:
    return text.split(",")


def _shown(default: Any) -> str:
    return ",".join(f"{part:g}" for part in default) if isinstance(default, tuple) else default


def _positive(text: str) -> float:
    if not 0 < float(text) < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 86400 s")
    return float(text)
