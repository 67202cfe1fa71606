"""Texts that tokenizers treat differently, drawn without a data set and always the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

FRAGMENTS = (
    *("how do glacier caves form", "The quick brown fox, 1,024.50 USD!", "C++ vs. C# (2024)"),
    *(
        "e-mail: a.b@example.org",
        "https://example.org/a?b=c&d=%20",
        "don't re-enter 3rd-party's",
        "x",
    ),
    *("冰川洞穴是如何形成的", "東京都の天気は?", "서울 날씨 어때", "混合 mixed 文字 text", "𠜎𠜱"),
    *("ما هي عاصمة مصر؟", "اَلْعَرَبِيَّةُ", "שלום עולם", "कृत्रिम बुद्धिमत्ता क्या है", "क्षत्रिय"),
    *("ปัญญาประดิษฐ์คืออะไร", "Ελληνικά", "Привет, мир", "ÀÉÎõü straße İstanbul", "Việt Nam"),
    *(
        "e\u0301a\u0300o\u0302",
        "Z\u0351\u036b\u0343a\u0363l\u0369g\u036fo",
        "n\u0303" * 3,
        "\u0301",
    ),
    *("👍", "👩‍👩‍👧‍👦 family", "🏳️‍🌈", "🇩🇪🇫🇷", "👩🏽‍💻 codes", "☃️", "1️⃣"),
    *(
        "\x00",
        "a\x00b",
        "\x01\x02\x7f",
        "\u200b",
        "a\u200db",
        "\ufeff",
        "\u00ad",
        "\ufffd",
        "\ue000",
    ),
    *("\t", "line\nbreak\r\n", "\u00a0", "\u2028", "\x85", "\u3000", "   "),
    *("a" * 99, "b" * 100, "c" * 101, "pneumono" * 40, "字" * 120, "-" * 80, "9" * 150),
    *(
        "[SEP]",
        "[CLS]",
        "</s>",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "<s>",
        "[sep]",
        "a[SEP]b",
        "[SEP",
        "##ing",
    ),
)


def random_texts(seed: int, longest: int) -> Iterator[str]:
    """Yield texts of 0 to `longest` fragments for ever, the same for the same seed."""
    draw = random.Random(seed)
    while True:
        count = draw.choice((0, 1, 1, 2, 5, 10, longest))
        glue = draw.choice((" ", " ", " ", "", "\n"))
        yield glue.join(draw.choices(FRAGMENTS, k=count))
