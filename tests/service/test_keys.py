import json
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.api.keys import ApiKey, Keys, MissingKeyError, ScopeError, UnknownKeyError
from service.ranking.allowance import Allowance
from service.settings import SettingsError, load_settings
from tests.service.asking import api_key

KEY = "drk_sesquipedalian-sesquipedalian-sesquipedalian"


def test_the_holder_of_a_key_is_found_among_several() -> None:
    keys = Keys([ApiKey(**api_key(name)) for name in ("old", "new", "other")])
    for name in ("old", "new", "other"):
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert keys.holder(["rank"], [f"{scheme} {name}".encode()]).key.name == name


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Basic new"],
        [b"new"],
        [b"Bearer new", b"Bearer new"],
    ],
)
def test_anything_but_one_bearer_key_is_none(authorization: list[bytes]) -> None:
    keys = Keys([ApiKey(**api_key("new"))])
    with pytest.raises(MissingKeyError):
        keys.holder(["rank"], authorization)
    assert keys.refusals == {"missing": 1, "unknown": 0}


@pytest.mark.parametrize("key", [b"ne", b"neww", b"NEW", b"new\xff", b"n" * 60_000])
def test_a_key_that_is_not_ours_is_unknown(key: bytes) -> None:
    keys = Keys([ApiKey(**api_key("new"))])
    with pytest.raises(UnknownKeyError):
        keys.holder(["rank"], [b"Bearer " + key])
    with pytest.raises(UnknownKeyError):  # a hash is not a key
        keys.holder(["rank"], [b"Bearer " + sha256(b"new").hexdigest().encode()])
    assert keys.refusals == {"missing": 0, "unknown": 2}


def test_a_key_without_the_scope_is_refused_and_counted_for_it() -> None:
    keys = Keys([ApiKey(**api_key("new", scopes=["metrics"]))])
    with pytest.raises(ScopeError):
        keys.holder(["rank"], [b"Bearer new"])
    assert keys.holders[0].refusals == {"scope": 1, "rate": 0}


def test_a_scope_is_guarded_once_a_key_has_it_and_admin_always() -> None:
    keys = Keys([ApiKey(**api_key("scrape", scopes=["metrics"]))])
    assert [keys.guard(scope) for scope in ("rank", "admin", "metrics")] == [False, True, True]


def test_allowance_lets_a_burst_pass_then_the_rate() -> None:
    allowance = Allowance(100, burst_s=2, now=0.0)
    allowance.spend(200, 0.0)
    assert allowance.wait_s(0.0) == 0.0  # nothing is left, but nothing is owed
    allowance.spend(300, 0.0)
    assert allowance.wait_s(0.0) == 3.0
    assert allowance.wait_s(2.0) == 1.0
    assert allowance.wait_s(3.0) == 0.0
    assert allowance.wait_s(1000.0) == 0.0
    allowance.spend(250, 1000.0)  # it was full again, at 200, not at more
    assert allowance.wait_s(1000.0) == 0.5


def test_new_key_prints_a_key_and_what_lets_it_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--name", "search", "--scope", "rank", "--scope", "metrics", "--tokens-per-s", "500"]
    assert main(["new-key", *flags]) == 0
    key, _, lines = capsys.readouterr().out.partition("\n")
    assert key.startswith("drk_")
    assert len(key) == len("drk_") + 43
    assert key not in lines
    (tmp_path / "disranker.toml").write_text(f"port = 0\n{lines}")
    (entry,) = load_settings({"config": str(tmp_path / "disranker.toml")}).keys
    assert Keys([entry]).holder(["metrics"], [f"Bearer {key}".encode()]).key == entry
    assert (entry.name, entry.scopes, entry.tokens_per_s) == ("search", ("rank", "metrics"), 500)


def test_new_keys_differ(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        main(["new-key", "--name", "search"])
    keys = {line for line in capsys.readouterr().out.splitlines() if line.startswith("drk_")}
    assert len(keys) == 3


def test_a_key_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (KEY, "two words", "", 'a"b', "x" * 65):
        with pytest.raises(SystemExit):
            main(["new-key", "--name", name])


def test_keys_come_from_a_file_a_flag_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [api_key("a"), api_key("b", scopes=["admin"])]
    assert [key.name for key in load_settings({"keys": json.dumps(entries)}).keys] == ["a", "b"]
    monkeypatch.setenv("DISRANKER_KEYS", json.dumps(entries))
    assert [key.scopes for key in load_settings({}).keys] == [("rank",), ("admin",)]
    upper = [{**entries[0], "sha256": entries[0]["sha256"].upper()}]
    assert load_settings({"keys": json.dumps(upper)}).keys[0].sha256 == entries[0]["sha256"]


GOOD = {"name": "a", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([{"name": "a", "sha256": KEY}], "keys.0.sha256: not the 64 hex digits"),
        ([GOOD, {"name": "b", "sha256": KEY + "0" * 16}], "keys.1.sha256: not the 64 hex"),
        ([{**GOOD, "sha256": 64 * "0" + "\n"}], "keys.0.sha256: not the 64 hex"),
        ([{"name": KEY, "sha256": "0" * 64}], "keys.0.name: a name is"),
        ([{**GOOD, "key": KEY}], "keys.0: Extra inputs are not permitted"),
        ([{**GOOD, KEY: True}], "keys.0: Extra inputs are not permitted"),
        ([{"sha256": "0" * 64}], "keys.0.name: Field required"),
        ([{**GOOD, "scopes": [KEY]}], "keys.0.scopes.0: Input should be 'rank'"),
        ([{**GOOD, "scopes": KEY}], "keys.0.scopes: Input should be a valid tuple"),
        ([{**GOOD, "scopes": []}], "keys.0.scopes: .*at least 1 item"),
        ([{**GOOD, "tokens_per_s": KEY}], "keys.0.tokens_per_s: .*a valid number"),
        ([{**GOOD, "tokens_per_s": 0}], "keys.0.tokens_per_s: .*greater than 0"),
        ([KEY], "keys.0: Input should be"),
        ({KEY: GOOD}, "keys: Input should be a valid tuple"),
        ([GOOD, {**GOOD, "name": "b"}], "keys: a key is given twice"),
        ([GOOD, {**GOOD, "sha256": "1" * 64}], "keys: two keys have the same name"),
    ],
    ids=str,
)
def test_bad_keys_are_named_and_never_repeated(keys: Any, message: str) -> None:
    for flag in (keys, json.dumps(keys)):
        with pytest.raises(SettingsError, match=f"^{message}") as caught:
            load_settings({"keys": flag})
        assert "sesquipedalian" not in str(caught.value)
        assert "000000" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "toml"),
    [
        ({"DISRANKER_KEYS": KEY}, ""),
        ({"DISRANKER_KEYS": f'["{KEY}"]'}, ""),
        ({"DISRANKER_KEYS": f'[{{"name": "a", "sha256": "{KEY}"}}]'}, ""),
        ({"DISRANKER_API_KEY": KEY}, ""),
        ({}, f'keys = "{KEY}"'),
        ({}, f'keys = ["{KEY}"]'),
        ({}, f'keys = ["{KEY}'),
        ({}, f'api_key = "{KEY}"'),
        ({}, f'[[keys]]\nname = "a"\nsha256 = "{KEY}"'),
        ({}, f'[[keys]]\nname = "a"\nkey = "{KEY}"'),
        ({}, f'[keys]\n"{KEY}" = ["rank"]'),
        ({}, f'[[keys]]\nname = "a"\nkey = {KEY}'),
    ],
    ids=str,
)
def test_start_with_a_plain_key_is_refused_without_repeating_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    toml: str,
) -> None:
    file = tmp_path / "disranker.toml"
    file.write_text(toml)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "sesquipedalian" not in err


def test_settings_do_not_show_hashes_when_printed() -> None:
    assert "0" * 16 not in repr(load_settings({"keys": [GOOD]}))


def test_example_of_the_documentation_is_toml() -> None:
    text = Path("docs/security.md").read_text()
    for block in text.split("```toml\n")[1:]:
        tomllib.loads(block.partition("```")[0])
