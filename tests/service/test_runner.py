import subprocess
import sys
from typing import Any

import pytest

from service.__main__ import main
from service.contract.bundle import Bundle, BundleError
from service.runner import choose_runner, local_precision
from service.settings import Settings, SettingsError, load_settings


def settings(bundle: Bundle, **fields: Any) -> Settings:
    return Settings(bundle=bundle.root, **fields)


def test_triton_runs_the_bundles_preferred_precision(bundle: Bundle) -> None:
    runner = choose_runner(settings(bundle, engine="triton"), bundle)
    assert (runner.name, runner.precision, runner.concurrency) == ("triton", "int8", 1)


def test_triton_may_run_what_is_beside_the_bundle(bundle: Bundle) -> None:
    only_int8 = bundle.manifest.model_copy(
        update={"precisions": {"int8": bundle.manifest.precisions["int8"]}}
    )
    without = Bundle(bundle.root, only_int8, bundle.golden)
    for precision in ("fp16", "fp8"):
        runner = choose_runner(settings(bundle, engine="triton", precision=precision), without)
        assert runner.precision == precision
    with pytest.raises(BundleError, match="no fp32 model"):
        choose_runner(settings(bundle, engine="triton", precision="fp32"), without)


def test_fp16_is_for_triton_only(bundle: Bundle) -> None:
    with pytest.raises(SettingsError, match="fp16 is for GPUs: the engine triton"):
        local_precision(settings(bundle, precision="fp16"), bundle)


def test_triton_is_for_serve_only(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--bundle", str(bundle.root), "--query", "cat", "--candidates", "-"]
    assert main(["rank", *flags, "--engine", "triton"]) == 2
    assert "triton is for serve" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://triton:8001", "triton", "triton:", "me@triton:8001"])
def test_triton_url_is_host_and_port(url: str) -> None:
    with pytest.raises(SettingsError, match="triton_url"):
        load_settings({"triton_url": url})


WITHOUT_RUNTIME = """
import importlib.metadata, sys
importlib.metadata.distributions = lambda: []
sys.modules["onnxruntime"] = None  # so that importing it is an error
from service.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_before_triton_the_service_needs_no_runtime(bundle: Bundle) -> None:
    flags = ["--bundle", str(bundle.root), "--port", "0", "--triton-url", "127.0.0.1:9"]
    python = [sys.executable, "-c", WITHOUT_RUNTIME, "serve", *flags]
    refused = subprocess.run(python, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "no inference runtime is installed" in refused.stderr
    with subprocess.Popen([*python, "--engine", "triton"], stderr=subprocess.PIPE) as serving:
        assert serving.stderr is not None
        assert any(b"listening on" in line for line in serving.stderr)
        serving.kill()
