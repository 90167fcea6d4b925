"""`chart list|show|export|history|verify`: for people, and for programs with --json."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run, run_command
from tests.support.apps import SEED


@pytest.fixture
def loaded(run: Run, seed: str) -> Run:
    """The command line on a database with two charts, of which `states` had an upgrade."""
    run("chart", "import", seed)
    run("chart", "import", seed, "--name", "another")
    Path(seed).write_text(SEED + "    description: the end\n")
    run("chart", "import", seed)
    return run


def test_list_prints_a_line_a_chart(loaded: Run) -> None:
    lines = loaded("chart", "list").out.splitlines()
    assert lines[0].split() == ["CHART", "CONDITION", "STATE", "RUN", "VERSION", "BECAUSE"]
    assert [line.split()[:5] for line in lines[1:]] == [
        ["another", "running", "green_state", "1", "1"],
        ["states", "running", "green_state", "1", "2"],
    ]


def test_list_as_json_is_a_list(loaded: Run) -> None:
    assert [item["chart"] for item in loaded("chart", "list", "--json").json()] == ["another", "states"]


def test_list_of_nothing_is_headings_or_an_empty_list(run: Run) -> None:
    assert run("chart", "list").out.startswith("CHART")
    assert run("chart", "list", "--json").json() == []


def test_show_says_where_a_chart_stands_and_what_it_waits_for(loaded: Run) -> None:
    done = loaded("chart", "show", "states")
    assert done.code == 0
    assert done.out.startswith("states: green_state\n")
    assert "waits for red_state when count >= 1" in done.out


def test_show_as_json_is_the_status(loaded: Run) -> None:
    status = loaded("chart", "show", "states", "--json").json()
    assert (status["chart"], status["current_state"], status["version"]) == ("states", "green_state", 2)


def test_export_is_a_chart_file_that_imports_again(loaded: Run, tmp_path: Path) -> None:
    done = loaded("chart", "export", "states")
    assert yaml.safe_load(done.out)["current_state"] == "green_state"
    path = tmp_path / "copy.yaml"
    path.write_text(done.out)
    assert loaded("chart", "import", str(path), "--name", "copy").code == 0


def test_history_prints_a_line_a_row_oldest_first(loaded: Run) -> None:
    lines = loaded("chart", "history", "states").out.splitlines()
    assert lines[0].split()[:3] == ["SEQ", "AT", "KIND"]
    assert [(line.split()[0], line.split()[3]) for line in lines[1:]] == [("1", "import"), ("2", "upgrade")]


def test_history_as_json_has_every_column(loaded: Run) -> None:
    rows = loaded("chart", "history", "states", "--json").json()
    assert [row["seq"] for row in rows] == [1, 2]
    assert set(rows[0]) >= {"chart", "seq", "at", "kind", "from_state", "to_state", "actor", "hash"}


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (("--after", "1"), ["upgrade"]),
        (("--limit", "1"), ["import"]),
        (("--kind", "upgrade"), ["upgrade"]),
        (("--machine", "web-01"), []),
        (("--after", "9"), []),
    ],
)
def test_history_takes_filters(loaded: Run, options: tuple[str, ...], kinds: list[str]) -> None:
    assert [row["kind"] for row in loaded("chart", "history", "states", "--json", *options).json()] == kinds


@pytest.mark.parametrize(
    "options", [("--limit", "0"), ("--limit", "x"), ("--after", "-1"), ("--kind", "nonsense"), ("--nonsense",)]
)
def test_history_exits_2_for_a_bad_option(loaded: Run, options: tuple[str, ...]) -> None:
    assert loaded("chart", "history", "states", *options).code == 2


def test_verify_says_that_all_is_well(loaded: Run) -> None:
    done = loaded("chart", "verify")
    assert done.code == 0
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["another", "states"]


def test_verify_takes_names(loaded: Run) -> None:
    done = loaded("chart", "verify", "another")
    assert (done.code, len(done.out.splitlines())) == (0, 1)


def test_verify_exits_1_when_the_log_was_changed_behind_the_back(sqlite_url: str, seed: str) -> None:
    run_command("--database", sqlite_url, "chart", "import", seed)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw, raw:
        raw.execute("DROP TRIGGER transition_log_refuses_update")
        raw.execute("UPDATE transition_log SET actor = 'nobody'")
    done = run_command("--database", sqlite_url, "chart", "verify")
    assert done.code == 1
    assert "states" in done.out


def test_verify_exits_1_when_the_position_was_changed_behind_the_back(sqlite_url: str, seed: str) -> None:
    run_command("--database", sqlite_url, "chart", "import", seed)
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw, raw:
        raw.execute("UPDATE charts SET state = 'red_state'")
    done = run_command("--database", sqlite_url, "chart", "verify", "states")
    assert done.code == 1
    assert "red_state" in done.out


@pytest.mark.parametrize("command", ["show", "export", "history", "verify"])
def test_unknown_chart_exits_1(run: Run, command: str) -> None:
    done = run("chart", command, "gone")
    assert (done.code, done.out) == (1, "")
    assert done.err == "state_service: no chart named 'gone'\n"


HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "states", "--after", HUGE),
        ("history", "states", "--limit", HUGE),
        ("machines", "states", "--run", HUGE),
        ("machines", "states", "--visit", HUGE),
        ("runs", "states", "--before", HUGE),
        ("show", "\udcff"),
        ("pause", "\udcff", "--reason", "x"),
        ("history", "states", "--machine", "\udcff"),
    ],
)
def test_value_that_no_database_holds_exits_2(run: Run, seed: str, arguments: tuple[str, ...]) -> None:
    run("chart", "import", seed)
    done = run("chart", *arguments)
    assert (done.code, "Traceback" in done.err, "mistake" in done.err) == (2, False, False)
