"""The soak's report holds memory's slope, and that of the leaking control, against the goals."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.results import Measured
from loadtest.soak.report import RAW, render, verdicts, write
from loadtest.soak.results import Slope, SoakResult, Watch
from tests.loadtest.test_report import HOST


def watch(mb_per_hour: Slope, *, leak_bytes: int = 0, **endings: int) -> Watch:
    return Watch(
        leak_bytes=leak_bytes,
        seconds=3600,
        requests=7000,
        block_s=(90.0, 1800.0, 3500.0),
        floor_mb=(150.0, 150.5, 151.0),
        mb_per_hour=mb_per_hour,
        bytes_per_request=Slope(slope=1, low=-1, high=3),
        endings={"200": 6000, "0": 700, **{name.strip("_"): n for name, n in endings.items()}},
        errors={"ranking failed": 2} if endings else {},
    )


def measured(steady: Watch, control: Watch) -> Measured[SoakResult]:
    return Measured[SoakResult](
        section="soak",
        at="2026-01-01T00:00+00:00",
        seconds=4300,
        command="python -m loadtest soak --minutes 60",
        requests="generated, of every shape",
        host=HOST,
        result=SoakResult(steady=steady, control=control),
    )


CAUGHT = watch(Slope(slope=90, low=80, high=99), leak_bytes=20_000)


@pytest.mark.parametrize(
    ("steady", "control", "met"),
    [
        (watch(Slope(slope=1, low=0, high=4.9)), CAUGHT, [True, True, True]),
        (watch(Slope(slope=1, low=0, high=5.1)), CAUGHT, [False, True, True]),
        (
            watch(Slope(slope=0, low=0, high=0)),
            watch(Slope(slope=9, low=4.9, high=12), leak_bytes=20_000),
            [True, False, True],
        ),
        (watch(Slope(slope=0, low=0, high=0), _500=2, _503=1), CAUGHT, [True, True, False]),
    ],
)
def test_each_goal_is_held_against_its_own_figure(
    steady: Watch, control: Watch, met: list[bool]
) -> None:
    found = [*verdicts(SoakResult(steady=steady, control=control))]
    assert [verdict.met for verdict in found] == met
    assert found[2].found == steady.endings.get("500", 0) + steady.endings.get("503", 0)


def test_the_report_tells_slopes_answers_and_errors_and_can_be_read_back(tmp_path: Path) -> None:
    steady = watch(Slope(slope=1.234, low=-0.5, high=3.21), _500=2)
    report = write(measured(steady, CAUGHT), tmp_path)
    text = report.read_text(encoding="utf-8")
    assert text == render(measured(steady, CAUGHT))
    assert "1.23 [-0.50, 3.21]" in text
    assert "200: 6,000, 0: 700, 500: 2" in text
    assert "logged as an error 2 times: ranking failed" in text
    raw = (tmp_path / RAW).read_text(encoding="utf-8")
    assert Measured[SoakResult].model_validate_json(raw).result.steady == steady
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_a_soak_too_short_for_a_trend_is_refused() -> None:
    command = [sys.executable, "-m", "loadtest", "soak", "--minutes", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "0.5 is not at least 1, for a trend" in done.stderr
