from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.real_part
def test_with_a_missing_server():
    pytest.skip("tritonserver is not installed")

@pytest.mark.real_part
def test_with_a_present_server():
    pass

def test_without_data():
    pytest.skip("needs --data")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers = real_part\n")
    pytester.makepyfile(SUITE)
    return pytester


def test_missing_real_part_fails_under_ci(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*missing under CI=true*tritonserver is not installed"])


def test_missing_real_part_is_listed_elsewhere(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*real parts skipped*", "*tritonserver is not installed"])
    assert "needs --data" not in result.stdout.str()
