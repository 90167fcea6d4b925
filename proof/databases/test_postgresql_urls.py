"""Every form of PostgreSQL's URL, with a password that a server checks and that needs coding in a URL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, make_url

from tests.support.apps import ROOT, opened_app
from tests.support.databases import database_on, migrate

SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")
PASSWORDS = {
    "percent": "50%25%",
    "at": "a@b@c",
    "slash and colon": "a/b:c?d#e",
    "space and plus": "a b+c",
    "ü": "pass-ü",
}


@pytest.fixture(scope="module")
def guarded(own_server: Any, own_admin: Engine) -> Iterator[tuple[Engine, str]]:
    """The own server asks the role `state` for its password; a migrated database is the role's own."""
    rules = Path(own_server.pgdata) / "pg_hba.conf"
    before = rules.read_text()
    for url in database_on(own_admin):
        migrate(url)
        name = str(make_url(url).database)
        run(own_admin, "CREATE ROLE state LOGIN", f"ALTER DATABASE {name} OWNER TO state")
        run(own_admin, "GRANT pg_read_all_data, pg_write_all_data TO state")
        rules.write_text(f"local all state scram-sha-256\n{before}")
        run(own_admin, "SELECT pg_reload_conf()")
        yield own_admin, name
        rules.write_text(before)
        run(own_admin, "SELECT pg_reload_conf()", f"ALTER DATABASE {name} OWNER TO postgres", "DROP ROLE state")


def run(admin: Engine, *statements: str) -> None:
    with admin.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def url_of(scheme: str, password: str, guarded: tuple[Engine, str]) -> str:
    admin, name = guarded
    run(admin, f"ALTER ROLE state PASSWORD '{password}'")
    return f"{scheme}://state:{quote(password, safe='')}@/{name}?host={admin.url.query['host']}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS)
def test_service_is_ready_with_url(guarded: tuple[Engine, str], scheme: str, password: str) -> None:
    for app in opened_app(url_of(scheme, password, guarded)):
        response = app.test_client().get("/readyz")
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_password_is_told_and_not_shown(guarded: tuple[Engine, str], scheme: str) -> None:
    url = url_of(scheme, "right", guarded).replace(":right@", ":wr%40ng@")
    for app in opened_app(url):
        response = app.test_client().get("/readyz")
        assert response.status_code == 503
        assert "password authentication failed" in response.get_json()["detail"]
        assert "wr@ng" not in response.text
        assert "wr%40ng" not in response.text


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("given", ["option", "variable"])
def test_command_line_reads_url(guarded: tuple[Engine, str], scheme: str, given: str) -> None:
    url = url_of(scheme, "p%40@:/ss", guarded)
    options = ["--database", url] if given == "option" else []
    environment = dict(os.environ) | ({"STATE_SERVICE_DATABASE_URL": url} if given == "variable" else {})
    for command in (["db", "upgrade"], ["chart", "list", "--json"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "state_service"), *options, *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == []
