"""Systems' scores on judged sets, kept so that a report is made again without the models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from service.contract.manifest import Relevance
from training.figures import JudgedScores
from training.judged import JudgedQueries
from training.pipeline.marks import Mark
from training.pipeline.pipeline import Pipeline
from training.pipeline.plan import Step
from training.report import file_name
from training.system_names import is_named
from training.systems import Recorded, System, load_system


class Run:
    """What one step wrote, or a path, as a system that is loaded when it is first needed."""

    def __init__(self, name: str, path: Path, identity: str) -> None:
        self.name = name
        self.path = path
        self.identity = identity

    @cached_property
    def system(self) -> System:
        """The system itself."""
        return load_system(self.path)

    def recorded(self, judged: JudgedQueries, folder: Path) -> Recorded | None:
        """Return its scores of a set, of the folder where they are there; None if it has none.

        Raises:
            RecipeError: It cannot be loaded, or a score is not finite.
        """
        path = folder / f"{file_name(f'{self.name} {judged.name}')}.json"
        key = [self.identity, _digest(judged)]
        fields = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if fields.get("of") != key:
            fields = {"of": key, **self._scored(judged)}
            folder.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".tmp")
            scratch.write_text(json.dumps(fields), encoding="utf-8")
            scratch.replace(path)
        relevance = fields["relevance"] and Relevance.model_validate(fields["relevance"])
        return Recorded(self.name, fields["run"], relevance) if fields["run"] else None

    def _scored(self, judged: JudgedQueries) -> dict[str, object]:
        system = self.system
        if isinstance(system, Recorded) and not any(
            example.query_id in system.run for example in judged.examples
        ):
            return {"relevance": None, "run": {}}
        relevance = None if system.relevance is None else system.relevance.model_dump()
        run = {
            query.query_id: dict(zip(query.documents, query.scores.tolist(), strict=True))
            for query in judged.score(system)
        }
        return {"relevance": relevance, "run": run}


@dataclass(frozen=True, slots=True)
class Arm:
    """A system of the report: the runs of its seeds, of which some may not be finished yet."""

    name: str
    runs: tuple[Run, ...]

    def score(self, judged: JudgedQueries, folder: Path) -> list[list[JudgedScores]]:
        """Return each run's scores of a set; none where the system knows nothing of it."""
        recorded = (run.recorded(judged, folder) for run in self.runs)
        return [judged.score(one) for one in recorded if one is not None]


def arms_of(pipeline: Pipeline, done: Mapping[str, Mark]) -> list[Arm]:
    """Return the report's systems in its order.

    Before a pipeline's end they have the seeds alone that all of them have, but for those that have
    none yet: a mean of two seeds beside one of three tells of seeds, not of systems.

    Args:
        pipeline: It has a report.
        done: The marks of its finished steps.
    """
    systems = () if pipeline.recipe.report is None else pipeline.recipe.report.systems
    finished = [step for step in pipeline.steps if step.name in done]
    seeds = [
        found
        for name in systems
        if (found := {s.seed for s in finished if s.stage.name == name and s.seed is not None})
    ]
    common = set.intersection(*seeds) if seeds else set()
    steps = [step for step in finished if not common or step.seed in {None, *common}]
    made = {step.stage.name for step in pipeline.steps}
    return [_arm(name, steps, done) if name in made else _given(name) for name in systems]


def _arm(name: str, steps: Sequence[Step], done: Mapping[str, Mark]) -> Arm:
    own = [step for step in steps if step.stage.name == name]
    return Arm(name, tuple(Run(step.name, step.output, done[step.name].identity) for step in own))


def _given(name: str) -> Arm:
    identity = name if is_named(name) else _stamp(Path(name))
    return Arm(name, (Run(name, Path(name), identity),))


def _stamp(path: Path) -> str:
    """Return what a file or folder is known by, without reading it."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _digest(judged: JudgedQueries) -> str:
    return hashlib.sha256(repr([asdict(e) for e in judged.examples]).encode()).hexdigest()
