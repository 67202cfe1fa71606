"""The command line of the load tests: bench, overload, shadow, soak, triton, users."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
from rich.console import Console

from loadtest.arguments import REPORTS, add_command
from loadtest.bench.plan import FULL, QUICK
from loadtest.bench.run import SECTIONS, Run
from loadtest.bench.subject import BenchError, Subject, default_services
from loadtest.client import ClientError
from loadtest.environments import EnvironmentMissingError
from loadtest.judged import DataError, JudgedFolder
from loadtest.overload.command import add_overload
from loadtest.peers.peer import PEERS
from loadtest.server import ServerError
from loadtest.shadow.command import add_shadow
from loadtest.soak.command import add_soak
from loadtest.triton.command import add_triton
from loadtest.users.command import add_users
from loadtest.users.slo import SloError
from loadtest.weights import WeightsError
from service.contract.bundle import Bundle, BundleError

BAD_RUN, STOPPED = 2, 130

ERRORS = (
    BenchError,
    BundleError,
    ClientError,
    DataError,
    EnvironmentMissingError,
    ServerError,
    SloError,
    WeightsError,
    httpx.HTTPError,
    OSError,
    ValueError,
)
EPILOG = """\
sections:
{sections}

examples:
  python -m loadtest bench                      everything, on generated requests
  python -m loadtest bench --data DIR           real queries and passages instead
  python -m loadtest bench --only engine,cache  two sections; the report keeps the others
  python -m loadtest bench --quick              a minute: is everything in place?
  python -m loadtest bench --service now= --service "portions=--launch-tokens 512"
                                                two configurations of the service, by turns

What is compared takes turns within one run, on the same requests, so that its ratio holds even
where the machine is shared; the absolute figures are the machine's. A stopped run goes on where it
was when it is started again. The peers' environments (about 4 GB) and weights are made once, in
CACHE.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 failed, 130 stopped."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    signal.signal(signal.SIGTERM, _stop)  # so that servers are ended then too
    console = Console(stderr=True)
    try:
        code: int = options.run(options, _shown(given), console)
    except ERRORS as error:
        print(f"loadtest: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_RUN
    except KeyboardInterrupt:
        print("stopped; `bench` goes on after its finished sections", file=sys.stderr)
        return STOPPED
    return code


def _shown(given: Sequence[str]) -> str:
    """Return the command line for the report, without the paths of this machine."""
    shown = ("DIR" if Path(argument).is_absolute() else argument for argument in given)
    return shlex.join(["python", "-m", "loadtest", *shown])


def _bench(options: argparse.Namespace, command: str, console: Console) -> int:
    bundle = Bundle.open(options.bundle)
    subject = Subject(
        bundle=bundle,
        plan=QUICK if options.quick else FULL,
        services=dict(options.service or default_services(bundle)),
        peers=options.peers,
        folder=JudgedFolder(options.data) if options.data else None,
        cache=options.cache,
        say=lambda _: None,
    )
    default = options.cache / "quick" if options.quick else REPORTS
    only = options.only or tuple(SECTIONS)
    sections = {name: section for name, section in SECTIONS.items() if name in only}
    run = Run(subject, sections, options.output or default, command, options.fresh)
    print(run.finish(console))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description="Measure a running service."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    sections = "\n".join(f"  {name:<11}{section.about}" for name, section in SECTIONS.items())
    bench = add_command(
        commands,
        "bench",
        _bench,
        about="compare the service with the bare engine and with its peers",
        description="Compare the service with the bare engine and with its peers, and write a "
        "report with tables and plots. The bundle needs an int8 model.",
        epilog=EPILOG.format(sections=sections),
        output=None,
    )
    _add_options(bench)
    add_overload(commands)
    add_shadow(commands)
    add_soak(commands)
    add_triton(commands)
    add_users(commands)
    return parser


def _add_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with mwmbl_web_llm, trec_dl19_passage or both; default: generated requests",
    )
    bench.add_argument(
        "--only",
        type=_names_of(SECTIONS),
        metavar="A,B",
        help=f"sections to measure, of {', '.join(SECTIONS)}; default: all",
    )
    peers = dict.fromkeys(peer.environment for peer in PEERS)
    bench.add_argument(
        "--peers",
        type=_names_of(peers),
        metavar="A,B",
        help=f"peers to compare, of {', '.join(peers)}, or none; default: all",
    )
    bench.add_argument(
        "--service",
        type=_configuration,
        action="append",
        metavar="NAME=FLAGS",
        help="a configuration of the service, with flags of `python -m service serve`; may be "
        "repeated; default: the default engine, and ONNX Runtime",
    )
    bench.add_argument(
        "--quick", action="store_true", help="short measurements, by default in CACHE/quick"
    )
    bench.add_argument(
        "--fresh", action="store_true", help="measure again what a stopped run had measured"
    )
    bench.add_argument(
        "--cache",
        type=Path,
        default=Path(".bench"),
        metavar="CACHE",
        help="folder of environments, weights and half-done runs; default: %(default)s",
    )


def _names_of(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of comma-separated names, each one of the known or all of them `none`."""

    def read(text: str) -> tuple[str, ...]:
        names = () if text == "none" else tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            choices = ", ".join(known)
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is none of {choices}")
        return names

    return read


def _configuration(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, flags = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=FLAGS")
    return name, tuple(shlex.split(flags))


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
