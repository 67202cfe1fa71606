"""Print the pip option that installs torch without CUDA, where there is no GPU to use it.

Prints nothing beside an NVIDIA GPU, nor when PyTorch's index of CPU builds stays silent for
seconds: pip then takes what its own configuration offers.
"""

import contextlib
import subprocess
import threading
import urllib.request

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
PATIENCE_S = 5.0


def main() -> None:
    """Print the option, or nothing."""
    if not has_nvidia_gpu() and answers(f"{CPU_BUILDS}/torch/"):
        print(f"--extra-index-url {CPU_BUILDS}")


def has_nvidia_gpu() -> bool:
    """Return whether NVIDIA's own tool runs and finds a GPU."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0  # noqa: S607
    except OSError:
        return False


def answers(url: str) -> bool:
    """Return whether the page came within PATIENCE_S, name resolution included."""
    answered = threading.Event()

    def fetch() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S):  # noqa: S310
            answered.set()

    # A resolver cannot be interrupted, so it is left behind with a thread that dies with us.
    fetching = threading.Thread(target=fetch, daemon=True)
    fetching.start()
    fetching.join(PATIENCE_S)
    return answered.is_set()


if __name__ == "__main__":
    main()
