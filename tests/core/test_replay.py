"""Replaying a log ends at the chart's position, and a damaged log is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.chart import Chart, OnExpire
from app.core.errors import LogDamagedError
from app.core.log import LogRow
from app.core.position import (
    Archive,
    Claim,
    Evict,
    Goto,
    Pause,
    Position,
    Release,
    Report,
    Reset,
    Resume,
    Tick,
    Update,
)
from app.core.replay import Replay
from tests.core.support import NOON, after, canary, chart, counted, final, old, rolling, rule, when
from tests.strategies import charts
from tests.support.examples import examples
from tests.support.happenings import Life, small_charts
from tests.support.model import Model


def read_again(rows: list[LogRow], versions: dict[int, Chart]) -> Replay:
    replay = Replay(chart_of=versions.__getitem__)
    for row in rows:
        replay.apply(row)
    return replay


def bare(position: Position | None) -> Position:
    """Return the position without what is read from the table of reports instead of the log."""
    assert position is not None
    return replace(position, succeeded=0, holder_reports={})


def agrees(made: Model) -> bool:
    replay = read_again(made.rows, made.versions)
    expected = (bare(made.position), made.current_reports, made.is_archived, len(made.rows))
    return (bare(replay.position), replay.reports, replay.is_archived, replay.seq) == expected


# One random life has many happenings, so fewer examples are enough here.
LIVES = settings(max_examples=examples(300, few=20))


@LIVES
@given(st.data())
def test_replay_ends_at_the_position_of_a_small_chart(data: st.DataObject) -> None:
    life = Life(Model())
    life.model.import_chart(data.draw(small_charts()), NOON)
    for _ in range(data.draw(st.integers(0, 30))):
        life.act(data)
    assert agrees(life.model)


@LIVES
@given(st.data())
def test_replay_ends_at_the_position_of_any_chart(data: st.DataObject) -> None:
    life = Life(Model())
    life.model.import_chart(data.draw(charts()), NOON)
    for _ in range(data.draw(st.integers(0, 10))):
        life.act(data)
    assert agrees(life.model)


# A life with a row of every kind


def full_life() -> Model:
    made = Model()
    reboot = counted(
        "reboot",
        when("halted", "failed", 3),
        when("done", "count", 3),
        slots=rule(3, lease=100, on_expire=OnExpire.FAIL),
    )
    made.import_chart(chart(reboot, counted("halted", old("done", 60), when("done", "count", 9)), final("done")), NOON)
    for name in ("m1", "m2", "m3"):
        made.do(Claim("reboot", name), NOON)
    made.put("reboot", after(1), "m1")
    made.do(Pause("look"), after(2))
    made.do(Resume("on"), after(12))
    made.do(Claim("reboot", "m1"), after(13))
    made.put("reboot", after(14), "m1", "failed")
    made.do(Release("reboot", "m2"), after(15))
    made.do(Tick(), after(120))
    made.do(Claim("reboot", "m2"), after(121))
    made.do(Evict("m2", "gone"), after(122))
    made.import_chart(replace(made.chart, roster=("m2", "m3"), expect=2), after(123))
    made.do(Goto("halted", "stop"), after(124))
    made.do(Tick(), after(184))
    made.do(Reset("again"), after(185))
    made.do(Archive("over"), after(186))
    made.import_chart(canary(1), after(187))
    made.put("canary", after(188), "m1")
    made.put("canary", after(189), "m1", "failed")
    return made


LIFE = full_life()


def test_replay_reads_rows_of_every_kind() -> None:
    kinds = {row.kind for row in LIFE.rows}
    wanted = "import upgrade update transition timeout pause resume reset goto archive claim release expire evict"
    wanted += " withdraw late"
    assert kinds == set(wanted.split())
    assert agrees(LIFE)


def damaged(change: Callable[[list[LogRow]], object]) -> list[LogRow]:
    rows = list(LIFE.rows)
    change(rows)
    return rows


def index(kind: str) -> int:
    return next(place for place, row in enumerate(LIFE.rows) if row.kind == kind)


def changing(at_kind: str, **columns: object) -> Callable[[list[LogRow]], object]:
    def change(rows: list[LogRow]) -> None:
        rows[index(at_kind)] = replace(rows[index(at_kind)], **columns)  # type: ignore[arg-type]

    return change


def renumbering(rows: list[LogRow]) -> None:
    rows[:] = [replace(row, seq=seq) for seq, row in enumerate(rows, 1)]


def dropping(kind: str) -> Callable[[list[LogRow]], object]:
    def drop(rows: list[LogRow]) -> None:
        del rows[index(kind)]
        renumbering(rows)

    return drop


DAMAGES = {
    "a row is missing": lambda rows: rows.pop(2),
    "the first row is missing": lambda rows: rows.pop(0),
    "a row stands twice": lambda rows: rows.insert(2, rows[2]),
    "two rows changed places": lambda rows: rows.insert(2, rows.pop(3)),
    "a missing claim, renumbered": dropping("claim"),
    "a missing import, renumbered": dropping("import"),
    "a missing upgrade, renumbered": dropping("upgrade"),
    "a missing goto, renumbered": dropping("goto"),
    "a missing reset, renumbered": dropping("reset"),
    "a missing archive, renumbered": dropping("archive"),
    "a missing update, renumbered": dropping("update"),
    "another value before": changing("update", value_before=5),
    "another value after": changing("update", value_after=5),
    "another key": changing("update", key="failed"),
    "a key that the state lacks": changing("update", key="x"),
    "another visit": changing("update", visit=9),
    "another run": changing("update", run=9),
    "another version": changing("pause", version=2),
    "another state": changing("update", from_state="halted"),
    "an update that moves": changing("update", to_state="halted"),
    "an unknown kind": changing("pause", kind="rest"),
    "a second import": changing("pause", kind="import"),
    "an import of another state": changing("import", from_state="done", to_state="done"),
    "a version that never was": changing("upgrade", version=9),
    "a move to no state": changing("timeout", to_state="nowhere"),
    "a claim without a fence": changing("claim", value_after=None),
    "a claim with an old fence": changing("claim", value_after=0),
    "a release of a slot that is not held": changing("release", machine="m9"),
    "an expiry of a slot that is not held": changing("expire", machine="m9"),
    "a reset that skips a run": changing("reset", run=9),
    "a withdrawal of no report": changing("withdraw", machine="m9"),
    "a withdrawal with another value": changing("withdraw", value_after=7),
    "a late report of the current visit": changing("late", visit=2),
    "a late report on a key that the state lacks": changing("late", key="x"),
    "a late report that counts": changing("late", value_after=1),
    "a late report that moves": changing("late", to_state="done"),
    "a withdrawal on another key": changing("withdraw", key="x"),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_replay_refuses(change: Callable[[list[LogRow]], object]) -> None:
    with pytest.raises(LogDamagedError):
        read_again(damaged(change), LIFE.versions)


def test_replay_refuses_a_claim_past_the_limit() -> None:
    made = Model()
    made.import_chart(rolling(1), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    second = replace(made.rows[-1], seq=3, machine="m2", value_after=2)
    with pytest.raises(LogDamagedError, match="claims past the limit"):
        read_again([*made.rows, second], made.versions)


def test_replay_accepts_a_claim_from_when_a_failure_widened_the_slots() -> None:
    made = Model()
    made.import_chart(rolling(1, 2), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    made.put("reboot", NOON, "m1", "failed")
    made.do(Claim("reboot", "m2"), NOON)
    third = replace(made.rows[-1], seq=5, machine="m3", value_after=3)
    replay = read_again([*made.rows, third], made.versions)
    assert replay.position is not None
    assert set(replay.position.slots) == {"m2", "m3"}


def test_replay_leaves_leases_alone_at_an_upgrade_from_before_they_followed() -> None:
    made = Model()
    made.import_chart(rolling(1), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    made.import_chart(rolling(1, lease=60), after(5))
    assert agrees(made)
    old = read_again([*made.rows[:-1], replace(made.rows[-1], reason="version 1 to 2")], made.versions)
    assert old.position is not None
    assert old.position.slots["m1"].expires_at is None


def test_replay_accepts_a_failure_taken_back_but_no_other_report_without_a_slot() -> None:
    made = Model()
    made.import_chart(rolling(1, lease=60, on_expire=OnExpire.FAIL), NOON)
    made.do(Claim("reboot", "m1"), NOON)
    made.do(Tick(), after(60))
    update = Update(
        state="reboot", machine="m1", report=Report(1, "m1", "failed"), takes_back=True, failed_by_lease=True
    )
    assert made.do(update, after(61)).position.values == {"count": 1, "failed": 0}
    assert agrees(made)
    other = replace(made.rows[-1], reason="moved from failed")
    with pytest.raises(LogDamagedError, match="holds no slot"):
        read_again([*made.rows[:-1], other], made.versions)


def test_replay_names_the_contradiction() -> None:
    rows = damaged(changing("update", value_before=5))
    with pytest.raises(LogDamagedError, match="found count at 5, the log before it gives 0"):
        read_again(rows, LIFE.versions)


@given(st.data())
def test_replay_refuses_any_log_with_a_row_left_out(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(LIFE.rows) - 2))
    with pytest.raises(LogDamagedError):
        read_again([row for number, row in enumerate(LIFE.rows) if number != place], LIFE.versions)
