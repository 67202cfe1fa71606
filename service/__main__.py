"""The command line: serve, rank, check-bundle, new-key, rollout."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.api.keys import NAME, SCOPES, fresh_key
from service.app import create_app
from service.contract.bundle import Bundle, BundleError
from service.logs import configure_logging
from service.offline import CandidatesError, check_bundle, rank_file
from service.ranking.readiness import Readiness
from service.rollout.command import add_rollout
from service.rollout.config_map import ConfigMapError
from service.rollout.orders import OrderError
from service.rollout.progress import WrongStateError
from service.rollout.store import StoreError
from service.runner import choose_runner, local_engine, local_precision
from service.runtime import (
    RuntimeChoiceError,
    installed_runtimes,
    require_one_runtime,
    share_heaps,
)
from service.scorers.native import kernels
from service.server import build_server, listen
from service.settings import PREFIX, Settings, SettingsError, is_loopback, load_settings

if TYPE_CHECKING:
    from service.api.spans import Spans

BAD_START = 2
REFUSALS = (
    *(BundleError, CandidatesError, RuntimeChoiceError, SettingsError, OSError),
    *(ConfigMapError, OrderError, StoreError, WrongStateError),
)

log = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return int(command(options))
    except REFUSALS as error:
        print(f"disranker: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_START


def serve(flags: dict[str, Any]) -> int:
    """Open the bundle, then the port; serve until told to stop."""
    share_heaps()
    settings = load_settings(flags)
    configure_logging(settings.log_level)
    if settings.engine != "triton":
        require_one_runtime(installed_runtimes())
    bundle = Bundle.open(settings.bundle)
    spans = _open_spans(settings.otlp_endpoint) if settings.otlp_endpoint else None
    runner = choose_runner(settings, bundle)
    readiness = Readiness()
    app = create_app(
        settings,
        bundle=bundle,
        engine=runner.engine,
        precision=runner.precision,
        engine_name=runner.name,
        concurrency=runner.concurrency,
        readiness=readiness,
        begin_span=spans.begin if spans else None,
    )
    may_rank = any("rank" in key.scopes for key in settings.keys)
    if not may_rank and not is_loopback(settings.host):
        log.warning("anybody who reaches this port may rank: no key has the scope rank")
    with listen(settings.host, settings.port) as sock:
        host, port = sock.getsockname()[:2]
        fields = {
            "host": host,
            "port": port,
            "model": bundle.manifest.name,
            "version": bundle.short_version,
            "precision": runner.precision,
            "engine": runner.name,
            "device": None if runner.name == "triton" else settings.device,
            "kernel": next(iter(kernels()), None) if runner.name == "native" else None,
        }
        log.info("listening on http://%s:%d", host, port, extra={"fields": fields})
        build_server(app, settings, readiness).run(sockets=[sock])
    if spans:
        spans.close()
    return 0


def rank(options: dict[str, Any]) -> int:
    """Rank the candidates of a file for one query."""
    query, candidates = options.pop("query"), options.pop("candidates")
    top_k, style = options.pop("top_k"), options.pop("format")
    settings = load_settings(options)
    require_one_runtime(installed_runtimes())
    bundle = Bundle.open(settings.bundle)
    rank_file(
        bundle,
        precision=local_precision(settings, bundle),
        engine=local_engine(settings),
        threads=settings.threads,
        query=query,
        candidates=candidates,
        top_k=top_k,
        max_query_chars=settings.max_query_chars,
        style=style or ("table" if sys.stdout.isatty() else "json"),
    )
    return 0


def check(options: dict[str, Any]) -> int:
    """Check a bundle's files and golden scores."""
    require_one_runtime(installed_runtimes())
    check_bundle(options["path"], threads=0)
    return 0


def new_key(options: dict[str, Any]) -> int:
    """Print a new key, and what to add to the settings for it."""
    key, digest = fresh_key()
    scopes = options["scope"] or ["rank"]
    print(key)
    print("\n[[keys]]")
    print(f'name = "{options["name"]}"')
    print(f'sha256 = "{digest}"')
    print(f"scopes = {json.dumps(scopes)}")
    if options["tokens_per_s"]:
        print(f"tokens_per_s = {options['tokens_per_s']}")
    return 0


def _open_spans(endpoint: str) -> Spans:
    """Import OpenTelemetry, which a service without it neither has nor pays for, and begin."""
    try:
        from service.api.spans import Spans
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"otlp_endpoint: {error.name} is not installed: pip install '.[otel]'"
        ) from error
    try:
        return Spans(endpoint)
    except ValueError as error:
        raise SettingsError(f"an OTEL_ variable makes no sense: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Serve, try or check a ranking model."
    )
    commands = parser.add_subparsers(
        required=True, metavar="serve | rank | check-bundle | new-key | rollout"
    )

    serve_parser = _command(
        commands,
        "serve",
        serve,
        "Serve POST /rank. Each setting is a flag, an environment variable and a TOML key; the "
        "flag wins over the variable, the variable over the file.",
        "python -m service serve --port 8080 --bundle models/default",
    )
    own = Settings.__annotations__  # before its parts', which pydantic has first
    names = sorted(Settings.model_fields, key=lambda name: name not in own)
    _add_settings(serve_parser, names)

    rank_parser = _command(
        commands,
        "rank",
        rank,
        "Rank a file's candidates for one query, without a server. A line of the file is a JSON "
        'object: {"id": …, "title": …, "summary": …}, or {"text": …}.',
        'echo \'{"text": "Bees make honey."}\' | '
        "python -m service rank --query 'how do bees make honey' --candidates -",
    )
    rank_parser.add_argument("--query", required=True, help="What is searched for.")
    rank_parser.add_argument(
        "--candidates", required=True, metavar="FILE", help="JSONL file; - reads standard input."
    )
    rank_parser.add_argument(
        "--top-k", type=_positive, default=None, metavar="K", help="How many to print; all."
    )
    rank_parser.add_argument(
        "--format",
        choices=("table", "json"),
        default=None,
        help="table for people, json for programs; by default a table on a terminal.",
    )
    _add_settings(rank_parser, ("config", "bundle", "precision", "engine", "threads"))

    check_parser = _command(
        commands,
        "check-bundle",
        check,
        "Check every byte of a bundle and score its golden pairs on this host.",
        "python -m service check-bundle models/default",
    )
    check_parser.add_argument("path", type=Path, help="The bundle's directory.")

    key_parser = _command(
        commands,
        "new-key",
        new_key,
        "Make a key. Prints the key, which is shown only here and is its user's, who sends it as "
        "'Authorization: Bearer KEY'; then the lines to add to the TOML file that serve --config "
        "reads, which hold its hash. Several keys may be in use at a time: to replace one, add the "
        "new, hand it out, then remove the old.",
        "python -m service new-key --name search --scope rank --tokens-per-s 20000",
    )
    key_parser.add_argument(
        "--name", required=True, type=_key_name, help="Who it is for; seen in logs and metrics."
    )
    key_parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="What it is good for, once for each; rank by default.",
    )
    key_parser.add_argument(
        "--tokens-per-s",
        type=_positive,
        metavar="R",
        help="Most tokens ranked for it in a second, over time; no limit by default.",
    )
    add_rollout(commands)
    return parser


def _command(
    commands: Any, name: str, run: Any, description: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, description=description, epilog=f"example: {example}", help=description.split(".")[0]
    )
    parser.set_defaults(command=run)
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: Any) -> None:
    for name in names:
        field = Settings.model_fields[name]
        default = "" if field.default in (None, ()) else f" Default: {field.default}."
        help_text = f"{field.description}{default} [{PREFIX}{name.upper()}]"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            metavar=name.split("_")[-1].upper(),
            help=help_text.replace("%", "%%"),
        )


def _key_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("a name is 1 to 64 of A-Z a-z 0-9 . _ -")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
