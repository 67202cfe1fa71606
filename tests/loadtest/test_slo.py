"""Thresholds are read strictly, and held against every request."""

from pathlib import Path

import pytest

from loadtest.users.report import UsersRun, write
from loadtest.users.slo import Ended, Slo, SloError, verdicts

ROOT = Path(__file__).parents[2]
SLO = Slo(p50_ms=100, p99_ms=200, error_share=0.1, requests_per_s=2)


def ended(*requests: tuple[float, float, bool]) -> list[Ended]:
    return [Ended(*request) for request in requests]


def test_shipped_thresholds_can_be_read() -> None:
    assert Slo.read(ROOT / "loadtest" / "slo.toml").error_share == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p50_ms = 1\np99_ms = 2\nerror_share = 0\n", "requests_per_s: Field required"),
        ("p50_ms = -1\np99_ms = 2\nerror_share = 0\nrequests_per_s = 0", "p50_ms: Input should be"),
        (
            "p95_ms = 1\np50_ms = 1\np99_ms = 2\nerror_share = 0\nrequests_per_s = 0",
            "p95_ms: Extra",
        ),
        ("p50_ms", "slo.toml: Expected"),
    ],
)
def test_bad_threshold_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "slo.toml").write_text(text)
    with pytest.raises(SloError, match=message):
        Slo.read(tmp_path / "slo.toml")


def test_failed_requests_count_as_errors_and_not_as_fast_ones() -> None:
    requests = ended((0.0, 0.15, True), (0.5, 0.001, False), (0.85, 0.15, True), (0.85, 0.25, True))
    found = [(v.goal, round(v.found, 3), v.met) for v in verdicts(SLO, requests, run_s=0.5)]
    assert found == [
        ("p50 latency", 150, False),
        ("p99 latency", 250, False),
        ("requests not answered as asked", 25, False),
        ("requests answered", 3, True),  # in a second, the first one's latency included
    ]


def test_a_service_that_stopped_answering_has_its_whole_time_counted() -> None:
    requests = ended((0.0, 0.1, True), (0.9, 0.1, True))
    (*_, rate) = verdicts(SLO, requests, run_s=10)
    assert (rate.goal, rate.found) == ("requests answered", 0.2)


def test_nothing_is_met_without_an_answer(tmp_path: Path) -> None:
    for requests in ([], ended((0.0, 0.1, False))):
        found = tuple(verdicts(SLO, requests, run_s=1))
        assert not any(v.met for v in found)
        assert "nan" not in write(UsersRun(requests, found, SLO, ()), tmp_path).read_text()


def test_report_names_a_threshold_of_zero_that_is_missed() -> None:
    slo = SLO.model_copy(update={"error_share": 0.0})
    requests = ended((0.0, 0.1, False), (1.0, 0.1, True))
    words = {v.goal: v.words for v in verdicts(slo, requests, run_s=1)}
    assert words["requests not answered as asked"] == "**missed**"
