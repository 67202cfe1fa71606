"""The report's page: whole in itself."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

from training.pipeline.page import html_page

TEXT = """\
# A title

| system | figure |
| --- | --- |
| a | 0.5<br><small>0.4 – 0.6</small> |

![what it shows](plot.png)
"""


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_a_page_holds_its_images_and_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"\x89PNG not really")
    page = html_page(TEXT, title="a < b", folder=tmp_path)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.cells == ["a", "0.5"]
    assert "<title>a &lt; b</title>" in page
    assert 'alt="what it shows"' in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 1
    kind, _, encoded = sources[0].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded) == b"\x89PNG not really"
    assert not re.search(r"https?://|url\(|@import", page)
