"""Which engine runs a model, and what is said where the native one cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.contract.bundle import Bundle, BundleError
from service.scorers import native
from service.scorers.native import NativeScorer
from service.scorers.onnx import OnnxScorer
from service.scorers.scorer import choose_engine, load_scorer

ROOT = Path(__file__).parents[2]

needs_native = pytest.mark.skipif(
    native.why_not() is not None, reason=f"no native engine: {native.why_not()}"
)


@needs_native
def test_int8_takes_the_native_engine_where_it_runs(bundle: Bundle) -> None:
    assert choose_engine(bundle, "int8") == ("native", None)
    assert isinstance(load_scorer(bundle, "int8"), NativeScorer)


def test_onnx_runtime_may_be_asked_for(bundle: Bundle) -> None:
    assert choose_engine(bundle, "int8", "onnx")[0] == "onnx"
    assert isinstance(load_scorer(bundle, "int8", engine="onnx"), OnnxScorer)


def test_a_model_without_weights_of_its_own_takes_onnx_runtime(bundle: Bundle) -> None:
    engine, reason = choose_engine(bundle, "fp32")
    assert engine == "onnx"
    assert reason == "the bundle's fp32 model has no weights for the native engine"
    with pytest.raises(BundleError, match="engine native: the bundle's fp32 model has no weights"):
        load_scorer(bundle, "fp32", engine="native")


def test_without_a_compiled_kernel_onnx_runtime_serves_and_says_why(
    bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("*.so"))
    done = subprocess.run(
        [sys.executable, "-m", "service", "check-bundle", str(bundle.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "int8: no native engine: the native kernels were not compiled" in done.stdout
    assert "int8, engine onnx: largest deviation" in done.stdout
