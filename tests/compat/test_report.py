from pathlib import Path

from tests.compat.clients import CLIENTS
from tests.compat.programs.checks import CHECKS, Finding
from tests.compat.report import BEGIN, END, table, write
from tests.compat.run import Report

FINDINGS = {name: Finding(name, "ok") for name in CHECKS} | {
    "top_n": Finding("top_n", "unsupported", "asks for all"),
    "401": Finding("401", "ok", "`KeyError`, no reason"),
    "429": Finding("429", "failed", "2 tries, not 3"),
}


def test_table_has_a_row_a_client_with_what_was_seen() -> None:
    client = CLIENTS[0]
    _, rule, row = table([Report(client, "1.2.3", FINDINGS)]).splitlines()
    assert row.count(" | ") == rule.count(" | ")
    assert f"| {client.name} | {client.package} 1.2.3 | {client.knob} | `{client.path}` | ok" in row
    assert "| – asks for all | ok | `KeyError`, no reason | ok | **failed** 2 tries, not 3 |" in row
    assert not Report(client, "1.2.3", FINDINGS).ok


def test_writing_the_table_keeps_the_words_around_it(tmp_path: Path) -> None:
    path = tmp_path / "clients.md"
    path.write_text(f"# Before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n", encoding="utf-8")
    for _ in range(2):
        write(path, [Report(CLIENTS[0], "1.2.3", FINDINGS)])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Before\n")
    assert text.endswith("\n\nafter\n")
    assert text.count("1.2.3") == 1
    assert "old" not in text


def test_documentation_names_every_client() -> None:
    text = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    for client in CLIENTS:
        assert f"| {client.name} | {client.package} " in text
