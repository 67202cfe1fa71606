"""A Markdown report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import markdown

IMAGE = re.compile(r'src="([^"]+\.png)"')

STYLE = """
:root { color-scheme: light dark;
  --line: #d8dbe0; --soft: #f5f6f8; --text: #1d2129; --dim: #626975; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3f48; --soft: #23272e; --text: #e4e6ea; --dim: #9aa1ad; }
  body { background: #181b20; } img { background: #fff; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--text); max-width: 68rem;
  margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; }
h2 { font-size: 1.25rem; margin-top: 2.6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
p, li { max-width: 52rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th { text-align: left; background: var(--soft); font-weight: 600; }
th, td { padding: .38rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
small { color: var(--dim); }
code { font: .88em ui-monospace, monospace; background: var(--soft); padding: .1em .3em;
  border-radius: 3px; white-space: normal; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
pre code { background: none; padding: 0; white-space: pre; }
img { max-width: 100%; border-radius: 4px; }
"""


def html_page(text: str, *, title: str, folder: Path) -> str:
    """Return a page of a Markdown text, with the images of a folder in it."""
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    body = body.replace("<table>", '<div class="wide"><table>')
    body = body.replace("</table>", "</table></div>")
    body = IMAGE.sub(lambda found: f'src="{_embedded(folder / found[1])}"', body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _embedded(image: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
