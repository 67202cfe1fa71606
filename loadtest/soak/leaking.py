"""A service that leaks on purpose, the control that a soak must catch.

`python -m loadtest.soak.leaking BYTES serve ...` is `python -m service serve ...`, but keeps BYTES
more with each request that ends.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys


def main() -> None:
    """Run the service, leaking beside it."""
    leak_bytes = int(sys.argv.pop(1))
    kept: list[bytes] = []

    def leak(_record: logging.LogRecord) -> bool:
        kept.append(os.urandom(leak_bytes))  # zeros would take no memory before they are touched
        return True

    logging.getLogger("service.requests").addFilter(leak)  # one line a request
    runpy.run_module("service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
