"""A service's counters are read as they are, and what it does not count is not made up."""

from loadtest.busy import Busy
from loadtest.metrics import Counts, counts_of

TEXT = """\
# TYPE disranker_tokens_total counter
disranker_tokens_total{kind="real",model="m"} 900.0
disranker_tokens_total{kind="padded",model="m"} 700.0
# TYPE disranker_request_duration_seconds histogram
disranker_request_duration_seconds_bucket{le="+Inf",outcome="ok"} 8.0
disranker_request_duration_seconds_count{outcome="ok"} 8.0
disranker_request_duration_seconds_count{outcome="degraded"} 1.0
disranker_request_duration_seconds_count{outcome="rejected"} 5.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 3.5
"""
WASTE = """\
# TYPE disranker_wasted_tokens counter
disranker_wasted_tokens_total{model="m"} 100.0
"""


def test_counters_are_found_among_the_metrics() -> None:
    assert counts_of(TEXT) == Counts(700, None, 9, 3.5)
    assert counts_of(TEXT + WASTE) == Counts(700, 100, 9, 3.5)


def test_waste_is_a_share_of_all_tokens_run_meanwhile() -> None:
    before, after = Counts(700, 100, 0, 0), Counts(1300, 300, 0, 0)
    assert after.wasted_share_since(before) == 0.25
    assert before.wasted_share_since(before) == 0
    assert Counts(1, None, 0, 0).wasted_share_since(before) is None


def test_others_have_what_neither_we_nor_our_service_took() -> None:
    before, after = Busy(0, 100, 10, cores=4), Busy(10, 130, 14, cores=4)
    assert after.others_share_since(before, known_cpu_s=6) == (30 - 4 - 6) / 40
    assert after.others_share_since(before, known_cpu_s=60) == 0
    assert Busy(10, None, 14, cores=4).others_share_since(before, 0) is None


def test_cores_clocks_only_go_on() -> None:
    first, second = Busy.now(), Busy.now()
    assert second.at_s >= first.at_s
    assert (second.cpu_s or 0) >= (first.cpu_s or 0)
