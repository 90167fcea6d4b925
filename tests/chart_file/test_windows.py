"""Windows, calendars and approvers in a chart file: read, refused at their place, and written again."""

from __future__ import annotations

from datetime import time, timedelta

import pytest

from app.chart_file import dump
from app.core.chart import Approvers, ElapsedGuard
from app.core.window import Schedule, Window
from tests.chart_file.support import problems_of, read

FILE = """\
current_state: patch
windows: {from: 22:00, to: 04:00, zone: Europe/Berlin}
except: [freeze]
fit: yes
states:
- name: patch
  func: increment
  slots: 2
  lease: 45m
  windows:
  - {days: [tue, mon], from: "8:00", to: "24:00", zone: $tz}
  - {days: sat, from: 08:00, to: 12:00}
  current: {key: count, value: 0}
  target: [{name: soak, when: {key: count, value: 1}}, {name: soak, when: {key: elapsed, value: 1d}}]
- name: soak
  func: time
  except: []
  target: {name: ask, when: {key: elapsed, value: 8h, of: open}}
- name: ask
  func: increment
  who: approvers
  not: importer
  windows: []
  current: [{key: approved, value: 0}, {key: rejected, value: 0}]
  target: [{name: done, when: {key: approved, value: 2}}, {name: done, when: {key: elapsed, value: 1d}}]
- name: done
"""


def test_windows_are_read_and_a_state_has_its_own() -> None:
    chart = read(FILE)
    night = Window(time(22), time(4), "Europe/Berlin")
    assert chart.schedule == Schedule(windows=(night,), calendars=("freeze",), fit=True)
    own = (Window(time(8), time(0), "$tz", (0, 1)), Window(time(8), time(12), "UTC", (5,)))
    assert chart.find_schedule("patch") == Schedule(windows=own, calendars=("freeze",), fit=True)
    assert chart.find_schedule("soak") == Schedule(windows=(night,), calendars=(), fit=True)
    assert chart.find_schedule("done") == chart.schedule
    assert chart.calendars == {"freeze"}


def test_elapsed_of_open_counts_by_the_windows_of_its_state() -> None:
    chart = read(FILE)
    guard = chart.states["soak"].transitions[0].guard
    assert guard == ElapsedGuard(timedelta(hours=8), "8h", schedule=chart.find_schedule("soak"))
    assert guard.text == "after 8h open"


def test_approvers_are_read() -> None:
    chart = read(FILE)
    assert chart.states["ask"].approvers == Approvers(not_importer=True)
    assert chart.states["patch"].approvers is None


def test_written_chart_reads_as_the_same_chart() -> None:
    chart = read(FILE)
    assert read(dump(chart, state="patch", values={})) == chart


STATE = """\
current_state: a
states:
- name: a
  func: increment
  current: {{key: count, value: 0}}
  {line}
  target: [{{name: b, when: {{key: count, value: 1}}}}, {{name: b, when: {when}}}]
- name: b
"""
ELAPSED = "{key: elapsed, value: 1h}"


@pytest.mark.parametrize(
    ("line", "when", "message"),
    [
        pytest.param(
            "windows: {from: '22:00', to: '04:00', zone: Europe/Berln}",
            ELAPSED,
            "6:47: zone: 'Europe/Berln' is not an IANA time zone (did you mean 'Europe/Berlin'?)",
            id="unknown zone",
        ),
        pytest.param(
            "windows: {from: '22:00', to: '04:00', zone: X}",
            ELAPSED,
            "6:47: zone: 'X' is not an IANA time zone (one is Europe/Berlin)",
            id="no zone near",
        ),
        pytest.param(
            "windows: {from: '22:00', to: '04:00', zone: $}",
            ELAPSED,
            "6:47: zone: '$' does not name a label, as $tz does",
            id="no label",
        ),
        pytest.param(
            "windows: {days: [mon, tuesday], from: '22:00', to: '04:00'}",
            ELAPSED,
            "6:25: unknown days 'tuesday' (did you mean 'tue'?)",
            id="bad day",
        ),
        pytest.param("windows: {days: [], from: '22:00', to: '04:00'}", ELAPSED, "6:19: days is an empty", id="no day"),
        pytest.param("windows: {from: '22:60', to: '04:00'}", ELAPSED, "6:19: from: '22:60' is not a time", id="time"),
        pytest.param("windows: {from: 22, to: '04:00'}", ELAPSED, "6:19: from: '22' is not a time", id="hour alone"),
        pytest.param("windows: {from: '24:00', to: '04:00'}", ELAPSED, "6:19: from: the day begins at", id="24:00"),
        pytest.param("windows: {from: '2:00', to: '24:01'}", ELAPSED, "6:31: to: '24:01' is past the end", id="24:01"),
        pytest.param("windows: {from: '22:00'}", ELAPSED, "6:12: a window lacks the key 'to'", id="no end"),
        pytest.param("windows: 22-04", ELAPSED, "6:12: a window must be a mapping", id="no mapping"),
        pytest.param("except: [a, a]", ELAPSED, "6:15: the calendar 'a' is listed twice", id="calendar twice"),
        pytest.param("except: [a/b]", ELAPSED, "6:12: except: 'a/b' is not 1 to 128", id="calendar's name"),
        pytest.param("fit: true", ELAPSED, "6:3: 'fit' needs 'windows' or 'except'", id="fit alone"),
        pytest.param(
            "except: [a]\n  fit: true", ELAPSED, "7:3: 'fit' needs 'slots' with a 'lease'", id="fit without a lease"
        ),
        pytest.param("fit: 1", ELAPSED, "6:8: fit: '1' is not true or false", id="fit"),
        pytest.param(
            "description: x", "{key: elapsed, value: 1h, of: open}", "'of: open' needs 'windows' or", id="of open"
        ),
        pytest.param(
            "windows: {from: '1:00', to: '2:00', zone: $tz}",
            "{key: elapsed, value: 1h, of: open}",
            "'of: open' needs windows with a zone of their own",
            id="of open, by machine",
        ),
        pytest.param("description: x", "{key: elapsed, value: 1h, of: opn}", "unknown of 'opn' (did you", id="of"),
        pytest.param(
            "description: x", "{key: count, value: 1, of: open}", "'of' belongs to a guard on 'elapsed'", id="of count"
        ),
        pytest.param("who: approver", ELAPSED, "6:8: unknown who 'approver' (did you mean 'approvers'?)", id="who"),
        pytest.param("not: importer", ELAPSED, "6:3: 'not' needs 'who: approvers'", id="not without who"),
        pytest.param(
            "who: approvers\n  slots: 1", ELAPSED, "6:3: 'who: approvers' and 'slots' exclude", id="people and slots"
        ),
    ],
)
def test_mistake_is_reported_at_its_place(line: str, when: str, message: str) -> None:
    found = "; ".join(map(str, problems_of(STATE.format(line=line, when=when))))
    assert message in found
