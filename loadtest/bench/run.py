"""One run of the bench: each section once, kept when done, then the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.bench.host import noted
from loadtest.bench.plots import draw
from loadtest.bench.report import render
from loadtest.bench.results import (
    CacheResult,
    CostResult,
    EngineResult,
    FrontEndResult,
    Measured,
    Part,
    PeersResult,
)
from loadtest.bench.sections import cache, cost, engine, front_end, peers
from loadtest.bench.store import Store
from loadtest.bench.subject import Subject
from loadtest.lengths import Kind

RESULTS = "results.json"
REPORT = "README.md"

Results = dict[str, Measured[Any]]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the bench.

    Attributes:
        about: What it measures, for --help.
        kind: Whose requests it sends.
        measure: Measures.
        model: Its result, for reading it back.
    """

    about: str
    kind: Kind
    measure: Callable[[Subject], Part]
    model: type[Measured[Any]]


SECTIONS = {
    "engine": Section(
        "tokens/s through HTTP at saturation against bare loops on the same engines",
        "passage",
        engine.measure,
        Measured[EngineResult],
    ),
    "peers": Section(
        "latency and throughput against other rerankers with the same weights",
        "passage",
        peers.measure,
        Measured[PeersResult],
    ),
    "front-end": Section(
        "time outside tokenising, queue and inference",
        "web",
        front_end.measure,
        Measured[FrontEndResult],
    ),
    "cost": Section(
        "latency by number and length of documents",
        "passage",
        cost.measure,
        Measured[CostResult],
    ),
    "cache": Section(
        "what warm caches save on a repeating query log",
        "web",
        cache.measure,
        Measured[CacheResult],
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What to measure, and where to write it.

    Attributes:
        subject: What is measured.
        sections: What of it, by name.
        output: Folder of the report, its plots and the raw results.
        command: The command line, for the report.
        fresh: Measure again what a stopped run had measured.
    """

    subject: Subject
    sections: Mapping[str, Section]
    output: Path
    command: str
    fresh: bool = False

    def finish(self, console: Console) -> Path:
        """Measure what is missing, write the report and return its path.

        Sections of the report that are not measured now stay as they were.
        """
        found = read_results(self.output / RESULTS) | self.measured(console)
        results = {name: found[name] for name in SECTIONS if name in found}
        self.output.mkdir(parents=True, exist_ok=True)
        raw = {name: json.loads(part.model_dump_json()) for name, part in results.items()}
        (self.output / RESULTS).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        plots = draw(results, self.output)
        report = self.output / REPORT
        report.write_text(render(results, plots), encoding="utf-8")
        self._store.clear()
        return report

    def measured(self, console: Console) -> Results:
        """Return the sections, those from the disk that a stopped run had finished."""
        if self.fresh:
            self._store.clear()
        found: Results = {}
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            task = progress.add_task("", total=len(self.sections))
            for name, section in self.sections.items():

                def say(text: str, name: str = name) -> None:
                    progress.update(task, description=f"[bold]{name}[/]: {text}")
                    if not console.is_terminal:
                        console.print(f"{name}: {text}", highlight=False, soft_wrap=True)

                if kept := self._store.find(name):
                    found[name] = section.model.model_validate_json(kept)
                    say(f"measured at {found[name].at}; --fresh measures again")
                else:
                    found[name] = self._measured(name, replace(self.subject, say=say))
                    self._store.keep(name, found[name].model_dump_json())
                progress.advance(task)
            progress.update(task, description="done")
        return found

    @property
    def _store(self) -> Store:
        return Store(self.subject.cache / "state", self._fingerprint())

    def _measured(self, name: str, subject: Subject) -> Measured[Any]:
        section = self.sections[name]
        return noted(
            section.model,
            name,
            lambda: section.measure(subject),
            bundle=subject.bundle,
            command=self.command,
            requests=subject.origin(section.kind),
        )

    def _fingerprint(self) -> dict[str, Any]:
        subject = self.subject
        return {
            "bundle": subject.bundle.manifest.version,
            "plan": asdict(subject.plan),
            "services": subject.services,
            "peers": subject.peers,
            "real": sorted(subject.folder.kinds) if subject.folder else [],
            "output": str(self.output.resolve()),
        }


def read_results(path: Path) -> Results:
    """Return the sections of an earlier run's raw results, none where there are none.

    Raises:
        ValueError: The file is there but was written by another version of the bench.
    """
    if not path.exists():
        return {}
    raw = json.loads(path.read_text(encoding="utf-8"))
    return {n: s.model.model_validate(raw[n]) for n, s in SECTIONS.items() if n in raw}
