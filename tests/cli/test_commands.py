"""Acts, tokens and long lists on the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import click
import pytest

from app.cli import shared
from app.cli.root import main
from app.service import operate
from app.service.context import Service
from tests.service.support import ANN, ROLLOUT, import_text, opened_service, put, query
from tests.service.support import ROSTERED as REBOOT
from tests.support import requests
from tests.support.commands import Commands


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    with opened_service(database_url) as service:
        yield service


@pytest.fixture
def run(database_url: str) -> Commands:
    return Commands(database_url)


ACTS = [
    (("pause", "web"), "paused by"),
    (("reset", "web"), "run 2"),
    (("goto", "web", "rollout"), "web: rollout"),
    (("archive", "web"), "web: canary"),
]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path


@pytest.fixture
def chart(service: Service) -> None:
    import_text(service, ROLLOUT)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    output = Commands("sqlite:///nowhere.db")(*path, "--help").output
    assert f"Example: ./state_service {' '.join(path)}" in " ".join(output.split())


# Acts


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(("act", "says"), ACTS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_act_logs_its_reason(service: Service, run: Commands, act: tuple[str, ...], says: str) -> None:
    assert says in run("chart", *act, "--reason", "because").stdout
    ((kind, actor, reason),) = query(service, "SELECT kind, actor, reason FROM transition_log WHERE seq = 2")
    assert (kind, reason) == (act[0], "because")
    assert actor.endswith(" (command line)")


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(("act", "says"), ACTS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_act_without_a_reason_exits_2(service: Service, run: Commands, act: tuple[str, ...], says: str) -> None:
    assert "--reason" in run("chart", *act, code=2).stderr
    assert "a reason is required" in run("chart", *act, "--reason", "  ", code=2).stderr
    assert query(service, "SELECT count(*) FROM transition_log") == [(1,)]


@pytest.mark.parametrize(("act", "says"), ACTS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_act_on_an_unknown_chart_exits_1(run: Commands, act: tuple[str, ...], says: str) -> None:
    assert "no chart named 'web'" in run("chart", *act, "--reason", "x", code=1).stderr


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize("act", [act for act, _ in ACTS[1:]], ids=lambda act: act[0])
def test_dry_run_of_an_act_says_what_would_be_lost(service: Service, run: Commands, act: tuple[str, ...]) -> None:
    put(service, "canary", "m1")
    assert run("chart", *act, "--dry-run").stdout.startswith(
        "would change web: 1 on count in canary is lost; 1 reported"
    )
    assert json.loads(run("chart", *act, "--dry-run", "--json").stdout)["lost"]["counts"] == {"count": 1}
    assert query(service, "SELECT count(*) FROM transition_log") == [(2,)]


@pytest.mark.usefixtures("chart")
def test_machines_are_filtered_and_printed_as_csv(service: Service, run: Commands) -> None:
    put(service, "canary", "m1")
    put(service, "canary", "m2", "failed")
    assert run("chart", "machines", "web", "--state", "canary", "--is", "failed").stdout.split()[5:7] == [
        "m2",
        "failed",
    ]
    assert (
        run("chart", "machines", "web", "--visit", "1", "--key", "count", "--csv").stdout.splitlines()[1][:9]
        == "m1,count,"
    )


@pytest.mark.usefixtures("chart")
def test_act_as_json_is_the_status(run: Commands) -> None:
    status = json.loads(run("chart", "pause", "web", "--reason", "lunch", "--json").stdout)
    assert (status["chart"], status["paused"], status["pause_reason"]) == ("web", True, "lunch")
    assert json.loads(run("chart", "resume", "web", "--reason", "back", "--json").stdout)["paused"] is False


@pytest.mark.usefixtures("chart")
def test_act_that_does_not_fit_the_position_exits_1(run: Commands) -> None:
    assert "is not paused" in run("chart", "resume", "web", "--reason", "x", code=1).stderr
    assert "holds no slot" in run("chart", "evict", "web", "m1", "--reason", "x", code=1).stderr
    assert "no state 'gone'" in run("chart", "goto", "web", "gone", "--reason", "x", code=2).stderr


def test_evict_frees_the_slot(service: Service, run: Commands) -> None:
    import_text(service, REBOOT)
    requests.claim(service, "web", "reboot", "m1", ANN)
    assert "slots: 0 of 2 held" in run("chart", "evict", "web", "m1", "--reason", "scrap").stdout


def test_machines_are_listed(service: Service, run: Commands) -> None:
    import_text(service, REBOOT.replace("    slots: 2\n    lease: 1h\n", ""))
    put(service, "reboot", "m2")
    heading, row = run("chart", "machines", "web").stdout.splitlines()
    assert re.split("  +", heading) == ["MACHINE", "KEY", "REPORTED AT", "NOTE"]
    assert re.split("  +", row)[:2] == ["m2", "count"]
    assert run("chart", "machines", "web", "--missing").stdout == "m1\nm3\n"
    unknown = run("chart", "machines", "web", "--is", "working")
    assert (unknown.stdout, unknown.stderr.split(" is not known, ")[0]) == ("", "which machines are at work in reboot")
    assert unknown.stderr.endswith("1 of 3 have reported in this visit; 2 have not: m1, m3.\n")
    assert json.loads(run("chart", "machines", "web", "--state", "done", "--json").stdout)["visit"] is None


@pytest.mark.usefixtures("chart")
@pytest.mark.parametrize(("form", "start"), [("svg", "<svg"), ("dot", "digraph"), ("mermaid", "stateDiagram-v2")])
def test_diagram_is_drawn(run: Commands, form: str, start: str) -> None:
    drawn = run("chart", "diagram", "web", "--format", form).stdout
    assert start in drawn
    assert "canary" in drawn


def test_diagram_refuses(run: Commands) -> None:
    run("chart", "diagram", "web", code=1)
    run("chart", "diagram", "web", "--format", "png", code=2)


# Tokens


def test_token_create_prints_only_the_secret(service: Service, run: Commands) -> None:
    made = run("token", "create", "fleet", "--role", "machine", "--charts", "web-*")
    assert re.fullmatch(r"sst_[A-Za-z0-9_-]{43}\n", made.stdout)
    secret = made.stdout.strip()
    assert secret not in made.stderr
    ((stored,),) = query(service, "SELECT sha256 FROM tokens")
    assert secret not in stored
    for options in ((), ("--json",)):
        assert secret not in run("token", "list", *options).output


def test_tokens_are_listed_and_revoked(run: Commands) -> None:
    run("token", "create", "fleet", "--role", "machine", "--charts", "web-*")
    run("token", "revoke", "fleet")
    run("token", "create", "ann", "--role", "admin")
    ann, fleet = json.loads(run("token", "list", "--json").stdout)
    assert (ann["name"], ann["role"], ann["pattern"], ann["revoked_at"]) == ("ann", "admin", "*", None)
    assert (fleet["name"], fleet["pattern"]) == ("fleet", "web-*")
    assert fleet["revoked_at"] > fleet["created_at"]
    assert re.split("  +", run("token", "list").stdout.splitlines()[2])[:3] == ["fleet", "machine", "web-*"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "x"), 2),
        (("create", "x", "--role", "king"), 2),
        (("create", "x y", "--role", "reader"), 2),
        (("create", "", "--role", "reader"), 2),
        (("create", "x", "--role", "reader", "--charts", "[a-z]"), 2),
        (("create", "taken", "--role", "reader"), 1),
        (("revoke", "gone"), 1),
        (("revoke",), 2),
    ],
)
def test_token_command_refuses(run: Commands, arguments: tuple[str, ...], code: int) -> None:
    run("token", "create", "taken", "--role", "reader")
    assert run("token", *arguments, code=code).stdout == ""


def test_token_cannot_be_revoked_twice(run: Commands) -> None:
    run("token", "create", "fleet", "--role", "machine")
    run("token", "revoke", "fleet")
    assert "is already revoked" in run("token", "revoke", "fleet", code=1).stderr
    assert "names are not used twice" in run("token", "create", "fleet", "--role", "machine", code=1).stderr


# History


def test_history_in_each_format_has_every_row(service: Service, run: Commands) -> None:
    import_text(service, ROLLOUT)
    put(service, "canary", "=cmd|' /C calc'!A0")
    operate.pause(service, "web", 'grün; "quoted", too', ANN)

    rows = json.loads(run("chart", "history", "web", "--json").stdout)
    assert [row["kind"] for row in rows] == ["import", "update", "pause"]
    assert [json.loads(line) for line in run("chart", "history", "web", "--ndjson").stdout.splitlines()] == rows
    found = list(csv.DictReader(io.StringIO(run("chart", "history", "web", "--csv").stdout)))
    assert [row["reason"] for row in found] == ["", "", 'grün; "quoted", too']
    assert found[1]["machine"] == "'=cmd|' /C calc'!A0"
    assert list(found[0]) == list(rows[0])


def test_history_without_rows_is_an_empty_array(service: Service, run: Commands) -> None:
    import_text(service, ROLLOUT)
    assert json.loads(run("chart", "history", "web", "--kind", "pause", "--json").stdout) == []
    assert run("chart", "history", "web", "--kind", "pause", "--ndjson").stdout == ""


def test_table_stays_aligned_after_the_rows_it_measured(monkeypatch: pytest.MonkeyPatch, run: Commands) -> None:
    monkeypatch.setattr(shared, "MEASURED_ROWS", 2)
    rows = [("a", "1"), ("bbbb", "2"), ("c", "3"), ("a long one", "4")]
    with click.testing.CliRunner().isolation() as (stdout, *_):
        shared.print_table(("NAME", "N"), iter(rows))
    assert stdout.getvalue().decode().splitlines() == ["NAME  N", "a     1", "bbbb  2", "c     3", "a long one  4"]


def test_progress_is_shown_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shared.progress("web") as show:
        show(1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with shared.progress("web") as show:
        show(1000, 4000)
        show(4000, 4000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "web" in err
    assert "100%" in err


def test_token_list_shows_machine_expiry_and_last_use(run: Commands) -> None:
    run("token", "create", "web-01", "--role", "machine", "--machine", "web-01", "--expires", "90d")
    (row,) = json.loads(run("token", "list", "--json").stdout)
    assert (row["machine"], row["last_used_at"]) == ("web-01", None)
    assert datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["created_at"]) == timedelta(days=90)
    assert "LAST_USED_AT" in run("token", "list").stdout
    assert run("token", "create", "x", "--role", "admin", "--machine", "web-01", code=2).stdout == ""
    assert run("token", "create", "x", "--role", "reader", "--expires", "soon", code=2).stdout == ""
