"""`python -m loadtest users`: locust's users against a service, held against thresholds."""

from __future__ import annotations

import argparse
import contextlib
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.arguments import add_command, at_least_one
from loadtest.server import our_service
from loadtest.users.crowd import crowd, require_ready
from loadtest.users.report import UsersRun, write
from loadtest.users.slo import Slo, verdicts

MISSED = 1
MAX_SEED = 1_000_000
EPILOG = """\
The exit code is 0 where every threshold of --slo is met, 1 where one is missed, 2 where the test
could not be run.

examples:
  python -m loadtest users                                 starts models/default and tests it
  python -m loadtest users --url http://127.0.0.1:8080     tests what runs there
  python -m loadtest users --users 50 --seconds 300 --slo my-slo.toml

With a page to watch and steer (http://127.0.0.1:8089):
  python -m locust -f loadtest/locustfile.py --host http://127.0.0.1:8080
"""


def add_users(commands: Any) -> None:
    """Add the command to a parser's commands."""
    parser = add_command(
        commands,
        "users",
        run,
        about="hold a service against the thresholds of slo.toml",
        description="Let users search a service, and hold their latencies and errors against "
        "thresholds. The bundle's tokenizer has the words that requests are made of.",
        epilog=EPILOG,
        output=Path("runs/loadtest"),
    )
    parser.add_argument("--url", help="a running service; default: one is started here")
    parser.add_argument(
        "--users", type=at_least_one, default=10, help="how many; default: %(default)s"
    )
    parser.add_argument(
        "--seconds", type=at_least_one, default=60, help="for how long; default: %(default)s"
    )
    parser.add_argument(
        "--candidates",
        type=at_least_one,
        default=48,
        help="documents a request; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="of the generated requests; default: another one each time, so that the service's "
        "caches know none of them",
    )
    parser.add_argument(
        "--slo",
        type=Path,
        default=Path(__file__).parents[1] / "slo.toml",
        help="thresholds; default: loadtest/slo.toml",
    )


def run(options: argparse.Namespace, command: str, console: Console) -> int:
    """Test, write the report, print the verdicts and return the exit code."""
    slo = Slo.read(options.slo)
    seed = random.randrange(MAX_SEED) if options.seed is None else options.seed
    with contextlib.ExitStack() as stack:
        if options.url:
            url = options.url.rstrip("/")
            require_ready(url)
        else:
            console.print(f"users: starting {options.bundle}", highlight=False)
            url = stack.enter_context(our_service(options.bundle)).url
        console.print(f"users: {options.users} for {options.seconds} s", highlight=False)
        requests = crowd(
            url,
            tokenizer_of=options.bundle,
            users=options.users,
            seconds=options.seconds,
            candidates=options.candidates,
            seed=seed,
        )
    found = tuple(verdicts(slo, requests, run_s=options.seconds))
    at = datetime.now(UTC).isoformat(timespec="minutes")
    service = options.url or f"a service started for it with {options.bundle}"
    about = (
        f"`{command}`, {at} UTC",
        f"{options.users} users who read for about a second, {options.candidates} candidates a "
        f"request, {options.seconds} s, on {service}; --seed {seed}",
    )
    print(write(UsersRun(requests, found, slo, about), options.output))
    for verdict in found:
        sign = "≤" if verdict.at_most else "≥"
        print(
            f"{verdict.goal}: {verdict.found:.2f}{verdict.unit} ({sign} "
            f"{verdict.limit:g}{verdict.unit}): {verdict.words.strip('*')}"
        )
    return 0 if all(verdict.met for verdict in found) else MISSED
