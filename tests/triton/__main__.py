"""Serve a bundle's model from the tests' Triton until Ctrl-C: `python -m tests.triton BUNDLE`."""

import argparse
import signal
import tempfile
from pathlib import Path

from export.triton import export_triton
from export.triton_config import Target
from service.contract.bundle import Bundle
from tests.triton.server import Triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--precision", choices=("fp32", "int8"))
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    target = Target("cpu", options.precision or bundle.manifest.preferred_precision)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export_triton(bundle, folder / "repository", target)
        triton = Triton(folder / "repository", folder)
        triton.start()
        try:
            print(triton.url, flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        finally:
            triton.kill()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
