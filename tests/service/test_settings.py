import re
from pathlib import Path

import pytest

from service.__main__ import main
from service.settings import Settings, SettingsError, load_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "disranker.toml"
    path.write_text('port = 1001\nhost = "0.0.0.0"\nbudget_ms = 7.5\n')
    return path


def test_flag_wins_over_environment_over_file_over_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({}).port == 8080
    assert load_settings({"config": str(toml)}).port == 1001
    monkeypatch.setenv("DISRANKER_CONFIG", str(toml))
    assert load_settings({}).budget_ms == 7.5
    monkeypatch.setenv("DISRANKER_PORT", "1002")
    assert load_settings({}).port == 1002
    found = load_settings({"port": "1003"})
    assert (found.port, found.host, found.max_batch) == (1003, "0.0.0.0", 48)  # noqa: S104


def test_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISRANKER_PROT", "1")
    with pytest.raises(SettingsError, match="DISRANKER_PROT"):
        load_settings({})


def test_unknown_key_in_the_file_is_an_error(toml: Path) -> None:
    toml.write_text("prot = 1\n")
    with pytest.raises(SettingsError, match=f"prot: no such setting .in {re.escape(str(toml))}"):
        load_settings({"config": str(toml)})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": "many"}, "port: .*got 'many'"),
        ({"port": "65536"}, "port: .*65535"),
        ({"budget_ms": "0"}, "budget_ms: .*greater than 0"),
        ({"precision": "fp4"}, "precision: .*fp32.*int8"),
        ({"canary_weight": "0.5"}, "canary_weight: there is no canary"),
        ({"shadow_url": "http://teacher:many"}, "shadow_url: its port"),
        ({"shadow_url": "http://teacher?model=7b"}, "shadow_url: .*pattern"),
        ({"shadow_model": "teacher"}, "shadow_model: .*shadow_url"),
        ({"shadow_protocol": "vllm-classify", "shadow_tokenizer": "t"}, "shadow_tokenizer: .*url"),
        ({"config": "nowhere.toml"}, "config: no such file: nowhere.toml"),
    ],
)
def test_bad_value_names_the_setting(flags: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(flags)


def test_file_that_is_no_toml_is_named(toml: Path) -> None:
    toml.write_text("port 1")
    with pytest.raises(SettingsError, match=re.escape(str(toml))):
        load_settings({"config": str(toml)})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("command", ["serve", "rank", "check-bundle"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"python -m service {command} " in text.split("example:")[1]


def test_help_names_every_setting_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert f"DISRANKER_{name.upper()}" in text
        assert field.description
