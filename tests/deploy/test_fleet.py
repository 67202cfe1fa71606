"""A canary beside a stable instance, split and mirrored by Envoy, judged by Prometheus."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.server import our_service
from tests.deploy.fleet import Split, scrape_job, split_of
from tests.deploy.parts import DEPLOY, ROOT
from tests.deploy.prometheus import PATIENCE_S, Prometheus, fast_rules, prometheus_of, recorded
from tests.deploy.test_grafana import queries
from tests.deploy.test_rollouts import analysis_queries
from tests.tiny import tiny_bundle

pytestmark = pytest.mark.real_part

STABLE, CANARY = "disranker-minilm-l6", "tiny"
SERVED = ROOT / "models/default"
# Both beside the same teacher, and no budget that a busy machine could miss.
FLAGS = ("--threads", "1", "--budget-ms", "60000", "--shadow", str(SERVED), "--shadow-sample", "1")
JUDGED = "disranker:canary_worse:by10m"
WORSE = "DisRankerCanaryWorse agreement"
KEYS = [f"user-{number}" for number in range(100)]


@dataclass(frozen=True, slots=True)
class Fleet:
    split: Split
    prometheus: Prometheus
    canary: str


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    candidate = tiny_bundle(folder / CANARY, name=CANARY, precisions=("fp32",))
    with (
        our_service(SERVED, *FLAGS) as stable,
        our_service(candidate, *FLAGS) as canary,
        split_of(folder, stable=stable.url, canary=canary.url) as split,
        prometheus_of(
            folder, scrape_job(stable=stable.url, canary=canary.url), rules=fast_rules(folder)
        ) as prometheus,
    ):
        prometheus.wait_for('disranker_ready{variant="canary"}')
        prometheus.wait_for('disranker_ready{variant="stable"}')
        yield Fleet(split, prometheus, canary.url)


@pytest.fixture
def split(fleet: Fleet) -> Iterator[Split]:
    yield fleet.split
    fleet.split.set(canary=0, mirror=0)


def test_nothing_goes_to_the_canary_until_it_is_given_a_weight(split: Split) -> None:
    assert set(split.models(KEYS).values()) == {STABLE}
    assert set(split.shares(20)) == {STABLE}


def test_user_stays_with_the_canary_while_its_weight_grows(split: Split) -> None:
    taken: set[str] = set()
    for weight in (5, 25, 100):
        split.set(canary=weight)
        models = split.models(KEYS)
        assert models == split.models(KEYS)
        users = {key for key, model in models.items() if model == CANARY}
        assert taken <= users
        deviation = (weight * (100 - weight) / len(KEYS)) ** 0.5
        assert 100 * len(users) / len(KEYS) == pytest.approx(weight, abs=4 * deviation)
        taken = users


def test_requests_without_a_key_are_split_too(split: Split) -> None:
    split.set(canary=50)
    assert split.shares(100)[CANARY] == pytest.approx(50, abs=25)


def test_canary_gets_copies_and_nobody_its_answers(split: Split, fleet: Fleet) -> None:
    split.set(mirror=100)
    before = answered(fleet.canary)
    assert set(split.models(KEYS[:20]).values()) == {STABLE}
    end = time.monotonic() + PATIENCE_S
    while answered(fleet.canary) < before + 20:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert answered(fleet.canary) == before + 20


def test_tester_may_choose_the_canary_and_nobody_changes_a_replica(split: Split) -> None:
    body = {"query": "bees", "candidates": [{"text": "Bees."}]}
    answer = split.client.post("/rank", json=body, headers={"X-Track": "canary"})
    assert answer.json()["model"]["name"] == CANARY
    assert split.client.get("/admin/lanes").status_code == 404


def test_canary_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    with (
        our_service(SERVED, *FLAGS) as stable,
        split_of(tmp_path, stable=stable.url, canary="http://127.0.0.1:9") as split,
    ):
        split.set(canary=100)
        assert set(split.models(KEYS[:20]).values()) == {STABLE}


def test_worse_canary_is_seen_once_enough_was_compared_and_forgotten_after(fleet: Fleet) -> None:
    split, prometheus = fleet.split, fleet.prometheus
    quiet_down(fleet)
    assert set(judgement(prometheus).values()) == {-1.0}
    split.set(canary=50)
    ask_until(fleet, lambda: -1 not in judgement(prometheus).values())
    ask_until(fleet, lambda: WORSE in prometheus.firing())
    assert [judgement(prometheus)[guard] for guard in ("errors", "missed", "degraded")] == [0, 0, 0]
    assert [query for query in queries() if ours(query) and not prometheus.values(query)] == []
    rules = DEPLOY / "prometheus/rules.yml"
    assert [name for name in recorded(rules) if not prometheus.values(name)] == []
    split.set(canary=0)
    ask_until(fleet, lambda: WORSE not in prometheus.firing())


def judgement(prometheus: Prometheus) -> dict[str, float]:
    """Return the one number that an analysis gets for each guard."""
    found = {}
    for guard, query in analysis_queries().items():
        (found[guard],) = prometheus.values(query)
    return found


def answered(url: str) -> float:
    """Return how many requests an instance has ranked."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    wanted = {"outcome": "ok", "variant": "stable"}.items()
    return sum(
        sample.value
        for sample in (one for family in families for one in family.samples)
        if sample.name == "disranker_request_duration_seconds_count"
        and wanted <= sample.labels.items()
    )


def ours(query: str) -> bool:
    """Return whether a panel is of the service itself, and not of its keys."""
    return "nv_" not in query and "disranker_key_" not in query


def ask_until(fleet: Fleet, done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        fleet.split.models(KEYS[:50])


def quiet_down(fleet: Fleet) -> None:
    """Return once what other tests asked is out of the window."""
    end = time.monotonic() + PATIENCE_S
    while WORSE in fleet.prometheus.firing() or fleet.prometheus.values(JUDGED):
        assert time.monotonic() < end
        time.sleep(0.5)
