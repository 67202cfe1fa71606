import gc
import weakref
from dataclasses import replace
from pathlib import Path

from service.contract.bundle import Bundle
from service.ranking.encoders import Encoders


def test_bundles_of_one_tokenizer_and_limits_share_an_encoder_that_goes_with_them(
    bundle: Bundle, candidate_path: Path
) -> None:
    encoders, candidate = Encoders(), Bundle.open(candidate_path)
    assert bundle.manifest.version != candidate.manifest.version
    encoder = encoders.of(bundle)
    assert encoders.of(candidate) is encoder
    shorter = replace(bundle, manifest=bundle.manifest.model_copy(update={"max_length": 128}))
    assert encoders.of(shorter) is not encoder
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None
