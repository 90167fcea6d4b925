"""Settings: what a text in the environment becomes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app import config
from app.config import Config, read_config
from app.core.errors import SettingError
from app.db.engine import normalize_url


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("state.example", ("state.example",)),
        ("State.EXAMPLE, LOCALHOST", ("state.example", "localhost")),
        ("state.example.", ("state.example",)),
        (".Example.", (".example",)),
        ("[2001:DB8::1]", ("[2001:db8::1]",)),
        ("", ()),
    ],
)
def test_trusted_hosts_are_read_without_case_and_final_dot(text: str, hosts: tuple[str, ...]) -> None:
    assert read_config({"STATE_SERVICE_TRUSTED_HOSTS": text}).trusted_hosts == hosts


@pytest.mark.parametrize("host", ["two words", "state.example:80", "http://state.example"])
def test_trusted_hosts_name_the_text_that_is_not_a_host_name(host: str) -> None:
    with pytest.raises(SettingError, match=re.escape(f"{host!r} is not a host name")):
        read_config({"STATE_SERVICE_TRUSTED_HOSTS": f"state.example,{host}"})


def test_config_takes_keywords_only() -> None:
    with pytest.raises(TypeError):
        Config("sqlite:///x.db")  # type: ignore[misc]  # the refusal is the point


def test_default_database_lies_in_the_checkout() -> None:
    assert normalize_url(Config().database_url).database == str(config.HOME / "instance" / "state_service.db")


def test_default_database_of_a_package_is_in_no_folder_if_its_user_has_no_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "HOME", tmp_path / "stateservice" / "home")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)

    database = normalize_url(config.default_database_url()).database
    assert database == "/nonexistent/.local/share/stateservice/state_service.db"


@pytest.mark.parametrize("folder", ["a%20b", "é?x", "a b#c", "100%"])
def test_default_database_url_keeps_the_folders_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    monkeypatch.setattr(config, "HOME", tmp_path / folder)
    assert normalize_url(config.default_database_url()).database == str(
        tmp_path / folder / "instance" / "state_service.db"
    )
