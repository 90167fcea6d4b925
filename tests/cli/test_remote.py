"""Each command says the same with `--server URL` as on the database."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from flask import Flask
from werkzeug.serving import make_server

from app.cli.asks import ASKS
from app.cli.remote import ON_BOTH, ON_FILES
from app.cli.root import main
from app.service.tokens import Role, create_token, list_tokens
from app.wiring import service_of
from tests.cli.conftest import Done, run_command
from tests.service.support import ANN, CANARY, import_text
from tests.support.apps import opened_app
from tests.support.databases import copied


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
    thread.join(30)


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


ROSTER = "web-01 zone=a rack=r1\nweb-02 zone=b\nweb-03 zone=a\n"
FREEZE = """BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:-//test//test//EN\r
BEGIN:VEVENT\r
UID:1\r
DTSTAMP:20260101T000000Z\r
DTSTART:20301220T000000Z\r
DTEND:20310107T000000Z\r
END:VEVENT\r
END:VCALENDAR\r
"""
APPROVED = """
chart: gate
current_state: review
states:
  - name: review
    func: increment
    who: approvers
    current: [{key: approved, value: 0}, {key: rejected, value: 0}]
    target:
      - {name: no, when: {key: rejected, value: 1}}
      - {name: done, when: {key: approved, value: 2}}
      - {name: no, when: {key: elapsed, value: 2d}}
  - name: done
  - name: "no"
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with what the commands import: charts, rosters and calendars, right and wrong."""
    texts = {
        "db.yaml": CANARY.replace("chart: web", "chart: db"),
        "more.yaml": CANARY.replace("value: 2}", "value: 3}", 1),
        "bad.yaml": CANARY.replace("soak", "oak", 1),
        "gate.yaml": APPROVED,
        "web.txt": ROSTER,
        "fewer.txt": ROSTER.partition("\n")[0],
        "bad.txt": "web-01\nweb-01 zone=a\nweb-02 zone\n",
        "freeze.ics": FREEZE,
        "later.ics": FREEZE.replace("20310107", "20310108"),
        "bad.ics": FREEZE.replace("DTEND:20310107T000000Z", "RDATE:20310107T000000Z"),
    }
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def twin_url(sqlite_template: Path) -> Iterator[str]:
    """A database that holds what the server's holds."""
    with copied(sqlite_template) as url:
        for app in opened_app(url, auth="tokens"):
            import_text(service_of(app), CANARY)
            create_token(service_of(app), "ann", Role.ADMIN, "*", ANN)
        yield url


def comparable(done: Done) -> tuple[int, str, str]:
    """What a command printed, without what differs from one run to the next: instants, secrets, hashes and names."""
    texts = []
    for text in (done.out, done.err):
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?", "INSTANT", text)
        text = re.sub(r"\b\d+ (s|min|h|d)( \d+ (s|min|h))?\b", "SPAN", text)
        text = re.sub(r"sst_\S+|whsec_\S+", "SECRET", text)
        text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
        # On the database the actor is the user, on a server the token's name.
        text = re.sub(r"ann \(command line\)", "ann", text)
        text = re.sub(r'"remote_addr": (null|"127\.0\.0\.1")|"seconds": [\d.]+', "HERE", text)
        texts.append(re.sub(r" +$", "", re.sub(r" {2,}", "  ", text), flags=re.M))
    return done.code, *texts


COURSES = {
    "reading": [
        "chart list",
        "chart list --json",
        "chart show web",
        "chart show web --json",
        "chart show gone",
        "chart export web",
        "chart diagram web --format dot",
        "chart machines web",
        "chart machines web --json",
        "chart machines web --csv",
        "chart machines web --is working",
        "chart machines web --missing",
        "chart machines web --state nowhere",
        "chart history web --csv",
        "chart history web --ndjson",
        "chart history web --json",
        "chart runs web",
        "chart runs web --json",
        "subscription list",
        "subscription list --json",
        "subscription show gone",
    ],
    "acts": [
        "chart pause web --reason lunch",
        "chart list",
        "chart resume web --reason fed --json",
        "chart goto web nowhere --reason x",
        "chart goto web soak",
        "chart goto web soak --dry-run",
        "chart goto web soak --dry-run --json",
        "chart goto web soak --reason now",
        "chart reset web --reason again",
        "chart open web --until 2031-01-01 --reason CVE",
        "chart evict web m1 --reason scrap",
        "chart history web",
        "chart history web --kind goto --json",
        "chart runs web",
        "chart verify web",
        "chart verify --json",
        "chart verify web --expect 1:{zero}",
        "chart verify --expect 1:{zero}",
        "chart verify gone",
        "chart archive web --reason old",
        "chart show web",
        "chart verify",
    ],
    "imports": [
        "chart import {files}/db.yaml --dry-run",
        "chart import {files}/db.yaml",
        "chart import {files}/db.yaml --json",
        "chart import {files}/more.yaml",
        "chart import {files}/bad.yaml",
        "chart list",
    ],
    "approvals": [
        "chart approve web --reason 'nobody approves there'",
        "chart approve web --reason ' '",
        "chart reject gone --reason x",
        "chart import {files}/gate.yaml",
        "chart approve gate --reason ' '",
        "chart approve gate --reason read",
        "chart list",
        "chart machines gate",
        "chart simulate gate --from-run 1 --machines 3 --runs 3 --jobs 1 --start 2026-01-01",
        "chart simulate gate --from-run 2 --machines 3 --runs 3 --jobs 1",
        "chart reject gate --reason no",
        "chart history gate",
    ],
    "lab": [
        "chart prove web --machines 3",
        "chart prove gone",
        "chart prove a/b.yaml",
        "chart simulate web --machines 5 --runs 3 --jobs 1 --start 2026-01-01",
        "chart simulate web --machines 5 --from-run 1",
        "chart simulate gone --machines 5",
        "chart simulate {files}/none.yaml --machines 5",
    ],
    "rosters": [
        "roster list",
        "roster show web",
        "roster import web {files}/web.txt --dry-run",
        "roster import web {files}/web.txt",
        "roster import web {files}/web.txt --json",
        "roster import web {files}/fewer.txt",
        "roster import web {files}/fewer.txt --max-loss 66.7%",
        "roster import web {files}/bad.txt",
        "roster import a/b {files}/web.txt",
        "roster list",
        "roster list --json",
        "roster show web",
        "roster show web --json",
        "roster show web --version 1 --where zone:a --where rack:r1,r2",
        "roster show web --version 9",
        "roster diff web",
        "roster diff web 1 2 --json",
    ],
    "calendars": [
        "calendar list",
        "calendar show freeze",
        "calendar import {files}/freeze.ics",
        "calendar import {files}/freeze.ics --json",
        "calendar import {files}/later.ics --name freeze",
        "calendar import {files}/bad.ics",
        "calendar list",
        "calendar list --json",
        "calendar show freeze",
        "calendar show freeze --json",
        "calendar show freeze --text",
    ],
    "tokens": [
        "token list",
        "token create web-01 --role machine --machine web-01 --charts web* --expires 90d",
        "token create web-01 --role machine",
        "token create ops --role operator --machine web-01",
        "token list",
        "token list --json",
        "token revoke web-01",
        "token revoke gone",
        "token list",
    ],
    # What would be another path, or none, if it were put into one.
    "names": [
        "chart show a/b",
        "chart show ..",
        "chart show a@b",
        "chart show ''",
        "chart show {long}",
        "chart export a?b",
        "chart history ../charts/web",
        "chart machines web/state",
        "chart runs a#b",
        "chart pause a%2Fb --reason x",
        "chart goto .. done --reason x",
        "chart approve a/b --reason x",
        "chart import {files}/db.yaml --name a/b",
        "chart wait a/b --timeout 0s",
        "roster show a/b",
        "roster diff ..",
        "roster import .. {files}/web.txt",
        "calendar show a/b",
        "calendar import {files}/freeze.ics --name a/b",
        "calendar import {files}/freeze.ics --name ..",
        "token create a/b --role reader",
        "token create .. --role reader",
        "token create '' --role reader",
        "token revoke a/b",
        "token revoke ..",
        "token revoke a@b",
        "subscription set a/b --url https://hooks.example.org/x",
        "subscription set .. --url https://hooks.example.org/x",
        "subscription show a/b",
        "subscription delete ..",
        "subscription test ''",
        "subscription deliveries a@b",
        "token list",
    ],
    "limits": [
        "chart history web --limit 5000 --ndjson",
        "chart history web --limit 5000 --json",
        "chart history web --limit 5000",
        "chart history web --machine ''",
        "chart history web --machine {long}{long}",
        "chart history web --since 9999-12-31 --csv",
        "chart history web --since 0001-01-01 --until 9999-12-31 --csv",
        "chart machines web --state ''",
        "chart machines web --state {long}",
        "chart machines web --key ''",
        "chart machines web --key nothing",
        "chart machines web --run 2147483647",
        "chart machines web --visit 9",
        "chart runs web --before 1",
        "chart show web --at 2099-01-01",
        "chart show web --at 0001-01-01",
        "chart pause web --reason {long}{long}{long}{long}{long}{long}{long}{long}",
        "chart pause web --reason ''",
        "chart goto web '' --reason x",
        "chart goto web canary --reason ' '",
        "chart evict web '' --reason x",
        "chart evict web {long}{long} --reason x",
        "chart open web --until 0001-01-01 --reason x",
        "chart open web --until 9999-12-31 --reason x",
        "chart import {files}/more.yaml --map x",
        "chart import {files}/more.yaml --map nowhere:soak",
        "chart import {files}/none.yaml",
        "roster import web {files}/none.txt",
        "roster show gone --version 3",
        "roster diff web 7 8",
        "calendar import {files}/none.ics",
        "token create x --role reader --expires 200000d",
        "token create x --role reader --expires 0s",
        "token create x --role reader --charts 'a[b'",
        "token create x --role reader --charts ''",
        "token create x --role machine --machine ''",
        "token create x --role machine --machine ' a'",
        "token create x --role operator --machine a",
        "subscription set pager --url ''",
        "subscription set pager --url https://hooks.example.org/x --secret ''",
        "subscription set pager --url https://hooks.example.org/x --kind nonsense",
        "subscription set pager --url https://hooks.example.org/x --charts 'a b'",
        "subscription deliveries gone",
        "subscription test gone",
    ],
    "subscriptions": [
        "subscription set pager --url https://hooks.example.org/x",
        "subscription list",
        "subscription delete pager",
    ],
}


@pytest.mark.parametrize("course", COURSES)
def test_commands_print_the_same_on_a_server_and_on_the_database(
    server: str, token_file: Path, twin_url: str, files: Path, course: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    for words in COURSES[course]:
        arguments = shlex.split(words.format(files=files, long="n" * 129, zero="0" * 64))
        over_http = run_command("--server", server, "--token-file", str(token_file), *arguments)
        on_database = run_command("--database", twin_url, *arguments)

        assert comparable(over_http) == comparable(on_database), words


def test_every_command_on_the_service_can_ask_a_server() -> None:
    """But for those that are about the database, about files, or find out themselves which place to ask."""
    groups = [command for command in main.commands.values() if isinstance(command, click.Group)]
    words = {f"{group.name} {name}" for group in groups for name in group.commands}

    elsewhere = {word for word in words if word.startswith("db ")}
    assert words == set(ASKS) | ON_FILES | ON_BOTH | elsewhere


def test_lifetime_of_a_token_is_the_same_over_http(app: Flask, server: str, token_file: Path) -> None:
    run_command(
        "--server",
        server,
        "--token-file",
        str(token_file),
        "token",
        "create",
        "x",
        "--role",
        "reader",
        "--expires",
        "90d",
    )

    (made,) = [row for row in list_tokens(service_of(app)) if row.name == "x"]
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == timedelta(days=90)


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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("chart wait", [("plain", "web")]),
        ("chart verify", [("plain", "web")]),
        ("db prune", [("plain", "web")]),
        ("chart prove", [("plain", "web"), ("file", "w")]),
        ("chart simulate", [("plain", "web"), ("file", "w")]),
        ("chart import", [("file", "w")]),
        ("chart lint --roster", [("file", "w")]),
        ("roster import web", [("file", "w")]),
        ("serve --chart", [("file", "w")]),
    ],
)
def test_shell_completes_what_a_command_takes(
    app: Flask, sqlite_url: str, words: str, found: list[tuple[str, str]]
) -> None:
    complete = BashComplete(main, {}, "state_service", "_STATE_SERVICE_COMPLETE")

    items = complete.get_completions(["--database", sqlite_url, *words.split()], "w")

    assert [(item.type, item.value) for item in items] == found
