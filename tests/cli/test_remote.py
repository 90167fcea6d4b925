"""Each command says the same with `--server URL` as on the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from flask import Flask
from werkzeug.serving import make_server

from app.cli.root import main
from app.service.tokens import Role, create_token
from app.wiring import service_of
from tests.cli.conftest import Done, run_command
from tests.service.support import ANN, CANARY, import_text
from tests.support.apps import opened_app


@pytest.fixture
def app(sqlite_url: str) -> Iterator[Flask]:
    """The service with one chart. It requires tokens."""
    for app in opened_app(sqlite_url, auth="tokens"):
        import_text(service_of(app), CANARY)
        yield app


@pytest.fixture
def server(app: Flask) -> Iterator[str]:
    """The address of a server over HTTP."""
    served = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()
    thread.join(10)


@pytest.fixture
def token_file(app: Flask, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(create_token(service_of(app), "ann", Role.ADMIN, "*", ANN) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without contexts, and an environment that names no database and no server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DATABASE_URL", "SERVER", "TOKEN_FILE"):
        monkeypatch.delenv(f"STATE_SERVICE_{name}", raising=False)
    return tmp_path


def both(server: str, token_file: Path, url: str, *arguments: str) -> tuple[Done, Done]:
    """Run a command over HTTP and on the database."""
    over_http = run_command("--server", server, "--token-file", str(token_file), *arguments)
    return over_http, run_command("--database", url, *arguments)


@pytest.mark.parametrize(
    "words",
    [
        "chart list",
        "chart export web",
        "chart diagram web --format dot",
        "chart history web --csv",
        "chart history web --ndjson",
        "chart history web --json",
        "chart machines web --csv",
        "subscription list",
    ],
)
def test_command_prints_the_same(server: str, token_file: Path, sqlite_url: str, words: str) -> None:
    over_http, on_database = both(server, token_file, sqlite_url, *words.split())

    assert (over_http.code, over_http.out) == (on_database.code, on_database.out)


def test_status_is_the_same(server: str, token_file: Path, sqlite_url: str) -> None:
    over_http, on_database = both(server, token_file, sqlite_url, "chart", "show", "web", "--json")

    assert over_http.json() | {"read_at": 0} == on_database.json() | {"read_at": 0}


def test_act_has_the_token_as_its_actor(server: str, token_file: Path, sqlite_url: str) -> None:
    done = run_command(
        "--server", server, "--token-file", str(token_file), "chart", "pause", "web", "--reason", "lunch"
    )
    rows = run_command("--database", sqlite_url, "chart", "history", "web", "--json").json()

    assert (done.code, rows[-1]["kind"], rows[-1]["actor"], rows[-1]["reason"]) == (0, "pause", "ann", "lunch")
    assert "paused" in done.out


def test_import_says_what_it_did(server: str, token_file: Path, sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "db.yaml"
    file.write_text(CANARY.replace("chart: web", "chart: db"))
    bad = tmp_path / "bad.yaml"
    bad.write_text(CANARY.replace("soak", "oak", 1))

    done = run_command("--server", server, "--token-file", str(token_file), "chart", "import", str(file))
    refused = run_command("--server", server, "--token-file", str(token_file), "chart", "import", str(bad))

    assert (done.code, done.out.splitlines()[0]) == (0, "db: created, version 1")
    assert (refused.code, "oak" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("chart show gone", 1, "gone"),
        ("chart goto web nowhere --reason x", 2, "nowhere"),
        ("db check", 2, "not on a server"),
        ("chart verify web", 2, "not on a server"),
    ],
)
def test_refusal_has_the_exit_code_of_its_kind(server: str, token_file: Path, words: str, code: int, said: str) -> None:
    done = run_command("--server", server, "--token-file", str(token_file), *words.split())

    assert (done.code, said in done.err) == (code, True), done


def test_server_comes_from_the_environment_or_from_a_context(server: str, token_file: Path, home: Path) -> None:
    from_environment = run_command(
        "chart", "list", "--json", STATE_SERVICE_SERVER=server, STATE_SERVICE_TOKEN_FILE=str(token_file)
    )
    (home / ".config").mkdir()
    contexts = f'context = "prod"\n[contexts.prod]\nserver = "{server}"\ntoken_file = "{token_file}"\n'
    (home / ".config" / "stateservice.toml").write_text(contexts)
    from_context = run_command("chart", "list", "--json")

    assert [one["chart"] for one in from_environment.json()] == ["web"]
    assert [one["chart"] for one in from_context.json()] == ["web"]
    assert run_command("--context", "test", "chart", "list").code == 2


def test_token_that_others_can_read_is_refused(server: str, token_file: Path) -> None:
    token_file.chmod(0o644)

    done = run_command("--server", server, "--token-file", str(token_file), "chart", "list")

    assert (done.code, "chmod 600" in done.err) == (2, True)


def test_server_that_does_not_answer_is_one_line() -> None:
    done = run_command("--server", "http://127.0.0.1:9", "chart", "list")

    assert (done.code, len(done.err.splitlines())) == (1, 1)


@pytest.mark.parametrize("place", ["server", "database"])
def test_wait_has_an_exit_code_for_each_end(
    app: Flask, server: str, token_file: Path, sqlite_url: str, place: str
) -> None:
    where = ("--server", server, "--token-file", str(token_file)) if place == "server" else ("--database", sqlite_url)
    client = app.test_client()
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}

    def wait(*words: str) -> int:
        return run_command(*where, "chart", "wait", "web", *words, "--timeout", "0s").code

    assert (wait(), wait("--for", "soak"), wait("--for", "nowhere")) == (3, 3, 2)
    for machine in ("m1", "m2"):
        assert client.put(f"/charts/web/state?state=canary&machine={machine}", headers=headers).status_code == 200
    assert wait("--for", "soak") == 0
    client.post("/charts/web/goto", json={"state": "rollback", "reason": "x"}, headers=headers)
    assert (wait(), wait("--for", "done")) == (1, 1)
    client.post("/charts/web/goto", json={"state": "done", "reason": "x"}, headers=headers)
    assert wait() == 0


def test_watch_shows_each_change_in_one_line_if_it_is_no_terminal(app: Flask, sqlite_url: str) -> None:
    for_admin = {"Authorization": "Bearer " + create_token(service_of(app), "bob", Role.ADMIN, "*", ANN)}
    app.test_client().post("/charts/web/goto", json={"state": "done", "reason": "x"}, headers=for_admin)

    done = run_command("--database", sqlite_url, "chart", "watch", "web")

    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert done.out.startswith("web: ended in done, run 1; ")


def test_shell_completes_the_names_of_charts(app: Flask, sqlite_url: str) -> None:
    complete = BashComplete(main, {}, "state_service", "_STATE_SERVICE_COMPLETE")

    found = complete.get_completions(["--database", sqlite_url, "chart", "show"], "w")

    assert [item.value for item in found] == ["web"]
