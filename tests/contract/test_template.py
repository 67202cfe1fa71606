from __future__ import annotations

import pytest

from service.contract.template import document_text
from service.contract.types import Candidate


@pytest.mark.parametrize(
    ("title", "summary", "text"),
    [
        ("Ice", "Glaciers move.", "Ice Glaciers move."),
        ("", "Glaciers move.", "Glaciers move."),
        ("Ice", "", "Ice"),
        ("", "", ""),
        (" \t\n", "Glaciers move.", "Glaciers move."),
        ("Ice", "\u3000", "Ice"),
        (" ", " ", ""),
        (" Ice ", "[SEP] x", " Ice  [SEP] x"),
    ],
)
def test_a_document_reads_as_title_and_summary_where_they_are_not_blank(
    title: str, summary: str, text: str
) -> None:
    assert document_text(Candidate(id="ignored", title=title, summary=summary)) == text
