"""`python -m tests.fuzz`: a service of our own under thousands of good and bad requests."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import httpx
from rich.console import Console
from rich.table import Table

from loadtest.server import Server
from loadtest.soak.watched import logged_errors, rss_bytes, service
from tests.fuzz.run import ROOT, Fuzzed

WARM_UP_SHARE = 0.2
MAX_GROWTH_MB = 40
"""Of resident memory after the warm-up; the caches are smaller, whatever comes."""

FLAGS = ("--token-cache-mb", "1", "--score-cache-mb", "1", "--admin", "true")
EXAMPLES_SHARE = 1 / 11
"""Random requests an operation for each case of a round: half the operations have no input."""

MB = 1_000_000


def main() -> int:
    """Fuzz, print what came of it, and return 0 where nothing was wrong, else 1."""
    options = _options()
    began = monotonic()
    with (
        TemporaryDirectory(prefix="fuzz-") as folder,
        service(
            *("--bundle", str(options.bundle), "--rollout-weights", f"{folder}/weights.json"),
            *FLAGS,
        ) as server,
    ):
        fuzzed = Fuzzed()
        _reach(fuzzed, server, options.seed, int(WARM_UP_SHARE * options.cases))
        before = rss_bytes(server)
        _reach(fuzzed, server, options.seed, options.cases)
        grown_mb = (rss_bytes(server) - before) / MB
        wrong = [*fuzzed.failures, *_faults(server, fuzzed, grown_mb)]
    _print_statuses(fuzzed)
    seeds = f"seeds {fuzzed.seeds[0]} to {fuzzed.seeds[-1]}"
    seconds = monotonic() - began
    print(f"{fuzzed.cases} cases in {seconds:.0f} s, {seeds}; memory grew by {grown_mb:.1f} MB")
    print("\n\n".join(wrong) or "nothing wrong")
    return 1 if wrong else 0


def _reach(fuzzed: Fuzzed, server: Server, seed: int, cases: int) -> None:
    """Run rounds until there were so many cases."""
    while fuzzed.cases < cases:
        examples = max(10, int(EXAMPLES_SHARE * (cases - fuzzed.cases)))
        before = fuzzed.cases
        fuzzed.add(server.url, seed=seed + len(fuzzed.seeds), examples=examples)
        if fuzzed.cases == before:
            return  # it did not even start, and said why


def _faults(server: Server, fuzzed: Fuzzed, grown_mb: float) -> list[str]:
    """Return what is wrong with the service after all, beside its answers."""
    errors = dict(logged_errors(server))
    found = {
        f"the service logged errors: {errors}": errors,
        f"memory grew by {grown_mb:.1f} MB, more than {MAX_GROWTH_MB}": grown_mb > MAX_GROWTH_MB,
        "the service does not rank any more": not _ranks(server.url),
        "nothing was asked": not fuzzed.cases,
    }
    return [fault for fault, is_so in found.items() if is_so]


def _ranks(url: str) -> bool:
    body = {"query": "cat", "candidates": [{"text": "cat"}]}
    with httpx.Client(base_url=url, timeout=30) as client:
        ready = client.get("/readyz").status_code
        return (ready, client.post("/rank", json=body).status_code) == (200, 200)


def _print_statuses(fuzzed: Fuzzed) -> None:
    statuses = sorted({status for _, status in fuzzed.statuses})
    table = Table("operation", *(str(status or "none") for status in statuses))
    for operation in sorted({operation for operation, _ in fuzzed.statuses}):
        counts = (fuzzed.statuses[operation, status] for status in statuses)
        table.add_row(operation, *(str(count or "") for count in counts))
    sums = Counter[int]()
    for (_, status), count in fuzzed.statuses.items():
        sums[status] += count
    table.add_row("all", *(str(sums[status]) for status in statuses))
    Console(width=120).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; default: 1")
    parser.add_argument(
        "--bundle", type=Path, default=ROOT / "models/default", help="default: models/default"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
