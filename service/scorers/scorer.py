"""What scores token pairs in this process, and which of the scorers it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from service.contract.bundle import Bundle, BundleError
from service.contract.encoding import TokenPair
from service.contract.manifest import Precision
from service.contract.template import TEMPLATE
from service.contract.types import Float32s
from service.scorers import native
from service.scorers.onnx import OnnxScorer

EngineName = Literal["native", "onnx"]


class Scorer(Protocol):
    """Scores token pairs; a score depends on its pair alone, bit for bit."""

    def score(self, pairs: Sequence[TokenPair]) -> Float32s:
        """Return the raw logit of each pair, float32 [n]; several threads may call at once."""
        ...


def choose_engine(
    bundle: Bundle, precision: Precision, wanted: EngineName | None = None
) -> tuple[EngineName, str | None]:
    """Return which engine runs a bundle's model here, and why not the native one, if it does not.

    Raises:
        BundleError: The native engine is wanted and cannot run it, or there is no such model.
    """
    reason: str | None
    if bundle.manifest.template != TEMPLATE:
        reason = f"the native engine runs BERTs; the bundle has {bundle.manifest.template!r} pairs"
    elif bundle.weights_path(precision) is None:
        reason = f"the bundle's {precision} model has no weights for the native engine"
    else:
        reason = native.why_not()
    if wanted == "native" and reason is not None:
        raise BundleError(f"engine native: {reason}")
    if wanted == "onnx" or reason is not None:
        return "onnx", reason
    return "native", None


def load_scorer(
    bundle: Bundle, precision: Precision, *, engine: EngineName | None = None, threads: int = 0
) -> Scorer:
    """Return the scorer of a bundle's model.

    Args:
        bundle: The bundle.
        precision: Which of its models.
        engine: What runs it; the native engine by default, where it can.
        threads: Threads inside an operator of ONNX Runtime, 0 for one a core. The native engine
            runs a call on the thread it comes from.

    Raises:
        BundleError: There is no such model, it does not load, or the engine cannot run it.
    """
    name, _ = choose_engine(bundle, precision, engine)
    weights = bundle.weights_path(precision)
    try:
        if name == "native" and weights is not None:
            return native.NativeScorer(weights)
        return OnnxScorer(bundle.model_path(precision), threads=threads)
    except ValueError as error:
        raise BundleError(str(error)) from error
