"""A checkpoint's tokenizer, as the service will run it, held against transformers' own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from export.errors import ExportError
from export.quiet import quiet
from service.contract.bundle import TOKENIZER
from service.contract.encoding import PairEncoder

TEXTS = (
    "how long do bees live",
    "  Two leading spaces, and two at the end.  ",
    "Åse's naïve café — «Straße», N\u0303andu\u0301",
    "東京の天気は？ 서울 날씨 สวัสดี",
    "مرحبا بالعالم 👩‍👩‍👧 🇩🇪 x²",
    "line one\nline two\ttabbed\u00a0joined\u200b3.14e-10",
    ".",
    "",
)
"""What tokenizers treat differently where a text begins, ends or meets another one."""


def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerFast:
    """Return a checkpoint's fast tokenizer, as transformers makes it of the folder's files.

    Raises:
        ExportError: It has none.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # transformers, tokenizers and json share no base class
        told = str(error).splitlines()[0]
        raise ExportError(f"{checkpoint}: its tokenizer cannot be loaded: {told}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ExportError(
            f"{checkpoint}: its {type(tokenizer).__name__} is no fast tokenizer; one is needed, "
            f"as {TOKENIZER}"
        )
    return tokenizer


def require_spliced(
    checkpoint: Path, tokenizer: PreTrainedTokenizerFast, inputs: Sequence[str]
) -> None:
    """Refuse a tokenizer whose pairs are not its two texts, each encoded alone, in a frame.

    Raises:
        ExportError: A pair is not, of those of `TEXTS`.
    """
    try:
        encoder = PairEncoder(
            tokenizer.backend_tokenizer, max_length=4096, max_query_length=1024, any_frame=True
        )
    except ValueError as error:
        raise ExportError(f"{checkpoint}: {error}") from None
    parts = encoder.encode_texts(TEXTS)
    none = [[0] * 4096] * len(TEXTS)
    for query, query_ids in zip(TEXTS, parts, strict=True):
        with quiet():  # all at once: of a single pair, an empty second text is left out
            whole = tokenizer([query] * len(TEXTS), list(TEXTS), split_special_tokens=True)
        rows = zip(TEXTS, parts, whole["input_ids"], whole.get("token_type_ids", none), strict=True)
        for document, document_ids, ids, segments in rows:
            pair = encoder.splice(query_ids, document_ids)
            found = pair.input_ids.tolist(), pair.token_type_ids.tolist()
            expected = ids, segments[: len(ids)] if "token_type_ids" in inputs else found[1]
            if found != expected:
                raise ExportError(
                    f"{checkpoint}: the pair of {query!r} and {document!r} is not made of the two "
                    f"encoded alone: its ids and segments are {expected}, not {found}"
                )
