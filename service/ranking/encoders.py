"""Encoders that several models use."""

from __future__ import annotations

from weakref import WeakValueDictionary

from service.contract.bundle import TOKENIZER, Bundle
from service.contract.encoder import Encoder


class Encoders:
    """Gives bundles of the same tokenizer and limits one encoder, as long as somebody has it.

    To read a tokenizer holds Python's lock, and so every request, for a tenth of a second in all;
    a model's next version nearly always has the same one.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[object, ...], Encoder] = WeakValueDictionary()

    def of(self, bundle: Bundle) -> Encoder:
        """Return a bundle's encoder.

        Raises:
            BundleError: It has none.
        """
        manifest = bundle.manifest
        tokenizer = manifest.files[TOKENIZER].sha256
        limits = manifest.max_length, manifest.max_query_length
        key = tokenizer, manifest.template, manifest.ends, *limits
        if (found := self._known.get(key)) is None:
            found = self._known[key] = bundle.encoder()
        return found
