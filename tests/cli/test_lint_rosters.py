"""`chart lint --roster` and `--calendar`: what the lines of a roster say against a chart, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.apps import ROOT

LINES = """\
web-01 zone=a rack=r1
web-02 zone=a rack=r2
web-03 zone=east
lb-01 tier=lb
"""

CHART = """\
chart: web
current_state: fleet
expect: {roster: web}
PROMISE
states:
- name: fleet
  func: increment
  expect: {roster: web, where: WHERE}
  slots: {total: 2, per: {LABEL: 1}}
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target:
  - {name: halted, when: {key: failed, value: 2}}
  - {name: done, when: {key: count, value: "100%"}}
  - {name: halted, when: {key: elapsed, value: 2d}}
- name: halted
- name: done
"""


@pytest.fixture
def roster(tmp_path: Path) -> str:
    path = tmp_path / "web.txt"
    path.write_text(LINES)
    return str(path)


def write_chart(tmp_path: Path, *, where: str = "{zone: a}", label: str = "rack", promise: str = "") -> str:
    path = tmp_path / "web.yaml"
    path.write_text(CHART.replace("WHERE", where).replace("LABEL", label).replace("PROMISE", promise))
    return str(path)


@pytest.mark.parametrize(
    ("where", "label", "expected"),
    [
        ("{zone: a}", "rack", []),
        ("{zoen: a}", "rack", ["8:33: no machine of the roster 'web' has the label 'zoen'"]),
        (
            "{zone: [a, weast]}",
            "rack",
            [
                "8:43: no machine of the roster 'web' has 'zone=weast' (did you mean 'east'?)",
            ],
        ),
        ("{zone: c}", "rack", ["8:39: no machine of the roster 'web' has 'zone=c' (its values are a, east)"]),
        (
            "{zone: a, tier: lb}",
            "rack",
            ["8:32: no machine of the roster 'web' has all of these labels: no machine takes part"],
        ),
        (
            "{zone: [a, east]}",
            "rack",
            ["9:27: 1 of 3 machines have no label 'rack': they are in no group of it"],
        ),
        ("{zone: a}", "shelf", ["9:27: 2 of 2 machines have no label 'shelf': they are in no group of it"]),
    ],
    ids=[
        "all match",
        "no such label",
        "one value of two",
        "no such value",
        "no such pair",
        "some ungrouped",
        "no group",
    ],
)
def test_lint_warns_of_labels_that_no_machine_has(
    bare: Run, tmp_path: Path, roster: str, where: str, label: str, expected: list[str]
) -> None:
    chart = write_chart(tmp_path, where=where, label=label)
    done = bare("chart", "lint", chart, "--roster", roster)
    found = [line.removeprefix(f"{chart}:").replace("warning: ", "") for line in done.err.splitlines()]
    assert (done.code, found) == (0, expected)
    assert bare("chart", "lint", chart).err == ""


def test_lint_prints_warnings_of_a_roster_as_json(bare: Run, tmp_path: Path, roster: str) -> None:
    chart = write_chart(tmp_path, where="{zone: c}")
    (found,) = bare("chart", "lint", chart, "--roster", f"web={roster}", "--json").json()
    assert [(warning["line"], warning["column"]) for warning in found["warnings"]] == [(8, 39)]


def test_lint_checks_promises_against_the_lines(bare: Run, tmp_path: Path, roster: str) -> None:
    chart = write_chart(tmp_path, promise='never: {down: ">1", at: halted}')
    later = bare("chart", "lint", chart)
    assert (later.code, "this promise is checked when the rosters are known" in later.err) == (0, True)
    done = bare("chart", "lint", chart, "--roster", roster)
    assert done.code == 2
    assert f"{chart}:4:8: error: never down >1 at halted can be broken: 2 machines can be down" in done.err


def test_lint_passes_a_promise_that_the_lines_keep(bare: Run, tmp_path: Path, roster: str) -> None:
    chart = write_chart(tmp_path, promise='never: {down: ">2", at: halted}')
    done = bare("chart", "lint", chart, "--roster", roster)
    assert (done.code, done.err) == (0, "")


def test_lint_says_which_roster_it_does_not_know(bare: Run, tmp_path: Path, roster: str) -> None:
    chart = write_chart(tmp_path, promise='never: {down: ">1", at: halted}')
    done = bare("chart", "lint", chart, "--roster", f"wbe={roster}")
    assert done.code == 0
    assert f"{chart}:3:18: warning: no --roster has the lines of 'web' (given: wbe)" in done.err
    assert "this promise is checked when the rosters are known" in done.err


def test_lint_refuses_a_bad_roster(bare: Run, tmp_path: Path) -> None:
    roster = tmp_path / "web.txt"
    roster.write_text("web-01 zone\n")
    done = bare("chart", "lint", write_chart(tmp_path), "--roster", str(roster))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"{roster}:1:1: error: ")


def test_lint_finds_the_sample_by_a_roster_fine(bare: Run) -> None:
    roster = str(ROOT / "charts" / "rosters" / "three-tiers.txt")
    done = bare("chart", "lint", str(ROOT / "charts" / "three-tiers.yaml"), "--roster", roster)
    assert (done.code, done.err) == (0, "")


FREEZE = """BEGIN:VCALENDAR
BEGIN:VEVENT
DTSTART;VALUE=DATE:20301224
END:VEVENT
END:VCALENDAR
"""
CLOSED = """\
chart: web
current_state: fleet
except: [freeze]
states:
- name: fleet
  func: time
  target: {name: done, when: {key: elapsed, value: 1h}}
- name: done
"""


def test_calendar_that_is_not_given_is_a_warning_if_others_are(bare: Run, tmp_path: Path) -> None:
    chart, calendar = tmp_path / "web.yaml", tmp_path / "frost.ics"
    chart.write_text(CLOSED)
    calendar.write_text(FREEZE)

    done = bare("chart", "lint", str(chart), "--calendar", str(calendar))
    given = bare("chart", "lint", str(chart), "--calendar", f"freeze={calendar}")

    assert (done.code, given.code) == (0, 0)
    assert done.err == f"{chart}:3:10: warning: no --calendar has the events of 'freeze' (given: frost)\n"
    assert (given.err, bare("chart", "lint", str(chart)).err) == ("", "")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("freeze=", FREEZE.replace("DTSTART", "RDATE"), "freeze.ics:2:1: error:"),
        ("a/b=", FREEZE, "--calendar: calendar"),
        ("freeze=none-", FREEZE, "No such file"),
    ],
)
def test_calendar_that_cannot_be_read_is_exit_2(bare: Run, tmp_path: Path, name: str, text: str, problem: str) -> None:
    chart, calendar = tmp_path / "web.yaml", tmp_path / "freeze.ics"
    chart.write_text(CLOSED)
    calendar.write_text(text)

    done = bare("chart", "lint", str(chart), "--calendar", f"{name}{calendar}")

    assert (done.code, problem in done.err) == (2, True), done.err
