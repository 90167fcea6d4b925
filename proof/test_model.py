"""The model finds each row that values, guards, the clock, slots or leases do not allow, and none that they do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.log import LogRow, chain_hash
from app.core.position import Kind
from proof.checker import Row, Terms, check, check_wakes, list_wakes
from proof.history import Attempt
from proof.model import digest, read_definitions, replay

CHART = """
current_state: a
states:
  - name: a
    func: increment
    slots: 2
    lease: 10s
    on_expire: fail
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: b, when: {key: failed, value: 2}}, {name: b, when: {key: count, value: 3}}]
  - name: b
    func: increment
    current: {key: count, value: 0}
    target: [{name: a, when: {key: count, value: 3}}, {name: a, when: {key: elapsed, value: 60s}}]
"""
LOWER = CHART.replace("value: 3", "value: 1").replace("lease: 10s", "lease: 15s")
DEFINITIONS = read_definitions([CHART, LOWER])
START = datetime(2026, 1, 1, tzinfo=UTC)
Change = dict[str, Any]


def log(*changes: Change) -> list[LogRow]:
    """An import of the chart, then these rows: each a second after the one before it, where that one left the chart."""
    rows = [
        LogRow(
            chart="c",
            version=1,
            run=1,
            visit=1,
            seq=1,
            at=START,
            kind=Kind.IMPORT,
            from_state="a",
            to_state="a",
            note=digest(CHART),
        )
    ]
    for change in changes:
        last = rows[-1]
        after = LogRow(
            chart="c",
            version=last.version,
            run=last.run,
            visit=last.visit + (last.kind in (Kind.TRANSITION, Kind.TIMEOUT, Kind.GOTO)),
            seq=last.seq + 1,
            at=last.at + timedelta(seconds=1),
            kind="",
            from_state=last.to_state,
            to_state=last.to_state,
        )
        rows.append(replace(after, **change))
    return rows


def count(before: int, key: str = "count", **more: Any) -> Change:
    return {"kind": Kind.UPDATE, "key": key, "value_before": before, "value_after": before + 1, **more}


def claim(machine: str, fence: int, before: int | None = None) -> Change:
    return {"kind": Kind.CLAIM, "machine": machine, "value_before": before, "value_after": fence}


def release(machine: str, fence: int) -> Change:
    return {"kind": Kind.RELEASE, "machine": machine, "value_before": fence}


def after(seconds: float) -> Change:
    return {"at": START + timedelta(seconds=seconds)}


M: Change = {"machine": "m"}
CLAIM_M, CLAIM_N = claim("m", 1), claim("n", 2)
FAIL_M = {"kind": Kind.EXPIRE, **M, "key": "failed", "value_before": 0, "value_after": 1, "reason": "fail"}
TO_B: Change = {"kind": Kind.GOTO, "to_state": "b"}
STRIKE: Change = {"kind": Kind.TIMEOUT, "key": "elapsed", "to_state": "a"}
TO_A: Change = {"kind": Kind.TRANSITION, "to_state": "a"}
PAUSE, RESUME = {"kind": Kind.PAUSE}, {"kind": Kind.RESUME}
RESET: Change = {"kind": Kind.RESET, "run": 2, "visit": 1, "to_state": "a"}
LOWERED: Change = {"kind": Kind.UPGRADE, "version": 2, "note": digest(LOWER)}

SOUND: dict[str, list[LogRow]] = {
    "an import": log(),
    "a report with a slot": log(CLAIM_M, count(0, **M)),
    "the last report": log(TO_B, count(0), count(1), count(2) | TO_A, CLAIM_M),
    "a report that moved": log(
        *(CLAIM_M, count(0, "failed", **M), claim("m", 2), count(0, **M)),
        *(claim("n", 3), count(0, "failed", machine="n")),
    ),
    "every slot": log(CLAIM_M, CLAIM_N),
    "a slot that was given back": log(CLAIM_M, CLAIM_N, release("m", 1), claim("o", 3)),
    "a lease that is renewed": log(CLAIM_M, claim("m", 1, 1) | after(5), count(0, **M) | after(14)),
    "a lease that ended": log(CLAIM_M, FAIL_M | after(11), CLAIM_N | after(12)),
    "a lease that a pause made longer": log(CLAIM_M, PAUSE, RESUME | after(22), count(0, **M) | after(29)),
    "the clock": log(TO_B, STRIKE | after(61)),
    "a clock that a pause held up": log(TO_B, PAUSE, RESUME | after(12), STRIKE | after(71)),
    "a report in a pause, judged by the resume": log(
        TO_B, PAUSE, count(0), count(1), count(2), RESUME | after(9), TO_A | after(9)
    ),
    "an upgrade that moves the chart": log(TO_B, count(0), LOWERED | after(9), TO_A | after(9)),
    "an upgrade that makes leases longer": log(CLAIM_M, LOWERED, FAIL_M | after(16)),
    "a reset in a pause": log(TO_B, PAUSE, RESET, RESUME, CLAIM_M),
    "a late report": log(
        TO_B,
        {"kind": Kind.LATE, "visit": 1, "from_state": "a", "to_state": "a", **M},
        {**STRIKE, "visit": 2, "from_state": "b"} | after(61),
    ),
}


@pytest.mark.parametrize("rows", SOUND.values(), ids=SOUND)
def test_nothing_is_found_when(rows: list[LogRow]) -> None:
    assert replay(rows, DEFINITIONS)[0] == []


BROKEN: dict[str, tuple[list[LogRow], str]] = {
    "one report too early": (log(TO_B, count(0), count(1) | TO_A), "seq 4: moves from 'b' to 'a' at {'count': 2}"),
    "one report too late": (
        log(TO_B, count(0), count(1), count(2)),
        "seq 5: stays in 'b' at {'count': 3}, although count",
    ),
    "one slot too many": (log(CLAIM_M, CLAIM_N, claim("o", 3)), "seq 4: 'o' claims slot 3 of 2"),
    "a report without a slot": (log(count(0, **M)), "seq 2: 'm' is counted without a slot"),
    "a lost count": (log(TO_B, count(0), count(0)), "seq 4: count is (0, 1), the rows before give (1, 2)"),
    "a count twice": (log(TO_B, count(0) | {"value_after": 2}), "seq 3: count is (0, 2)"),
    "a machine that is done": (
        log(CLAIM_M, count(0, **M), claim("m", 2)),
        "seq 4: 'm' claims a slot, and has done its",
    ),
    "a fence twice": (log(CLAIM_M, claim("n", 1)), "seq 3: the fence is (None, 1), the rows before give (None, 2)"),
    "a lease that ends early": (log(CLAIM_M, FAIL_M | after(10)), "seq 3: the lease of 'm' ends at"),
    "a lease that frees": (log(CLAIM_M, FAIL_M | after(11) | {"reason": "free"}), "seq 3: on_expire is 'free'"),
    "a lease that was over": (
        log(CLAIM_M, CLAIM_N | after(11)),
        "seq 3: claim at 2026-01-01 00:00:11+00:00, although the",
    ),
    "a slot in a pause": (log(PAUSE, CLAIM_M), "seq 3: 'm' claims a slot of 'a', which gives none now"),
    "a slot given back twice": (log(CLAIM_M, release("m", 1), release("m", 1)), "seq 4: 'm' gives a slot back"),
    "an early clock": (log(TO_B, STRIKE | after(60)), "seq 3: the clock moved the chart after 0:00:59"),
    "a clock that runs in a pause": (
        log(TO_B, PAUSE, RESUME | after(12), STRIKE | after(70)),
        "seq 5: the clock moved the chart after 0:01:09, 0:01:00 was the rule, and 0:00:10 of pauses",
    ),
    "a late clock": (log(TO_B, count(0) | after(61)), "seq 3: update at 2026-01-01 00:01:01+00:00, although the clock"),
    "a move in a pause": (log(TO_B, PAUSE, STRIKE | after(90)), "seq 4: moves from 'b' to 'a'"),
    "a resume that judges no guard": (
        log(TO_B, PAUSE, count(0), count(1), count(2), RESUME, count(3)),
        "seq 8: the chart stays in 'b' at {'count': 3}, although count reached 3",
    ),
    "an upgrade that judges no guard": (log(TO_B, count(0), LOWERED), "the log ends, although count reached 1"),
    "an upgrade that forgets": (log(TO_B, count(0), LOWERED | {"note": digest(CHART)}, count(0)), "count is (0, 1)"),
    "an upgrade that nobody sent": (log(LOWERED | {"note": "0"}), "seq 2: an upgrade to a chart file that nobody sent"),
    "a resume without a pause": (log(RESUME), "seq 2: a resume of a chart that is not paused"),
    "another visit": (log(TO_B, count(0) | {"visit": 3}), "seq 3: update in [1, 1, 3, 'b'], where the chart is in"),
    "a report that moves by itself": (log(TO_B, count(0) | {"to_state": "a"}), "seq 3: update moves the chart"),
}


@pytest.mark.parametrize(("rows", "problem"), BROKEN.values(), ids=BROKEN)
def test_contradiction_is_found_when(rows: list[LogRow], problem: str) -> None:
    found, _ = replay(rows, DEFINITIONS)
    assert problem in "; ".join(found)


# What clients saw, on a chart with definitions

TERMS = Terms({"a": "count", "b": "count"}, definitions=DEFINITIONS)
SECOND = 10**9


def chained(rows: list[LogRow]) -> list[Row]:
    made, previous = [], ""
    for row in rows:
        previous = chain_hash(previous, row)
        made.append(Row(row, previous))
    return made


def asked(method: str, state: str, called: int, returned: int, seq: int | None = None, **more: Any) -> Attempt:
    return Attempt("c", method, state, called, returned, more.pop("status", 200), seq=seq, **more)


CLAIMED = [asked("CLAIM", "a", 1, 2, 2, value=1, **M), asked("CLAIM", "a", 3, 4, 3, value=2, machine="n")]
NO_CLAIM = asked("CLAIM", "a", 5, 6, 3, status=406, machine="o")
FAILED_AGAIN = asked("PUT", "a", 3, 99 * SECOND, 3, key="failed", replay=True, **M)
PAUSED = log(PAUSE | {"reason": "p"})
GOTO = {**TO_B, "reason": "g"}
WENT = asked("GOTO", "b", 1, 2, idempotency_key="g")

SEEN: dict[str, tuple[list[LogRow], list[Attempt], str]] = {
    "claims until the slots are held": (log(CLAIM_M, CLAIM_N), [*CLAIMED, NO_CLAIM], ""),
    "a claim refused although a slot was free": (log(CLAIM_M), [CLAIMED[0], replace(NO_CLAIM, seq=2)], "1 of 2 slots"),
    "another fence": (log(CLAIM_M), [replace(CLAIMED[0], value=7)], "with 7, and its row, seq 2, says 1"),
    "a claim that nobody made": (log(CLAIM_M), [], "nobody sent it"),
    "a report refused for want of a slot": (log(), [asked("PUT", "a", 1, 2, 1, status=406, **M)], ""),
    "a report refused despite its slot": (
        log(CLAIM_M),
        [CLAIMED[0], asked("PUT", "a", 3, 4, 2, status=406, **M)],
        "where that was the state",
    ),
    "another value": (
        log(CLAIM_M, count(0, **M)),
        [CLAIMED[0], asked("PUT", "a", 3, 4, 3, value=2, **M)],
        "with 2, and its row, seq 3, says 1",
    ),
    "a failure that the end of its lease had counted": (
        log(CLAIM_M, FAIL_M | after(11)),
        [CLAIMED[0], FAILED_AGAIN],
        "",
    ),
    "a failure that no lease had counted yet": (
        log(CLAIM_M, FAIL_M | after(11)),
        [CLAIMED[0], replace(FAILED_AGAIN, seq=2)],
        "replays what was not applied up to seq 2",
    ),
    "a failure that was answered and is not in the log": (
        log(CLAIM_M),
        [CLAIMED[0], replace(FAILED_AGAIN, seq=2)],
        "answered 200 and is not in the log",
    ),
    "a slot given back that was not held": (log(), [asked("RELEASE", "a", 1, 2, 1, replay=True, **M)], ""),
    "a pause": (PAUSED, [asked("PAUSE", "", 1, 2, idempotency_key="p"), asked("GET", "a", 3, 4, status=406)], ""),
    "a yes after the pause was confirmed": (
        PAUSED,
        [asked("PAUSE", "", 1, 2, idempotency_key="p"), asked("GET", "a", 3, 4)],
        "explained by no version from 2 to 2",
    ),
    "a pause that was lost": (log(), [asked("PAUSE", "", 1, 2, idempotency_key="p")], "not its row"),
    "a pause that is not needed": (log(), [asked("PAUSE", "", 1, 2, status=409, idempotency_key="p")], ""),
    "a pause that was refused and done": (
        PAUSED,
        [asked("PAUSE", "", 1, 2, status=409, idempotency_key="p")],
        "was applied, but its 1 attempts were answered ['409']",
    ),
    "a goto": (log(GOTO), [WENT], ""),
    "a clock that is due while a pause is written": (
        log(GOTO, PAUSE | {"reason": "p"} | after(60)),
        [WENT, asked("PAUSE", "", 3, 99 * SECOND, idempotency_key="p"), asked("GET", "a", 4, 61 * SECOND, 2)],
        "",
    ),
    "a clock that is due while a reset is written": (
        log(GOTO, RESET | {"reason": "r"} | after(62)),
        [WENT, asked("RESET", "", 3, 99 * SECOND, idempotency_key="r"), asked("GET", "a", 4, 63 * SECOND, 2)],
        "",
    ),
    "a clock that was not due": (log(GOTO), [WENT, asked("GET", "a", 4, 50 * SECOND, 2)], "where the state was 'b'"),
}


@pytest.mark.parametrize(("rows", "attempts", "problem"), SEEN.values(), ids=SEEN)
def test_what_clients_saw_is_judged_when(rows: list[LogRow], attempts: list[Attempt], problem: str) -> None:
    found = check(chained(rows), attempts, TERMS)
    assert found == [] if not problem else problem in "; ".join(found)


def test_deadline_may_come_sooner_once_the_clock_was_moved() -> None:
    attempts = [WENT, asked("GET", "a", 4, 50 * SECOND, 2)]
    assert check(chained(log(GOTO)), attempts, replace(TERMS, leapt=3)) == []


def test_waiting_clients_hear_late_only_if_most_of_them_do() -> None:
    rows = chained(log(TO_B, count(0), count(1), count(2) | TO_A))
    mover = asked("PUT", "b", 10, 20, 5)
    question = asked("GET", "a", 30, 31, 5)

    def woken_after(seconds: float) -> Attempt:
        return asked("GET", "a", 1, 20 + int(seconds * SECOND), 5, wait=1)

    late, soon = [woken_after(0.5)] * 10, [woken_after(0.1)] * 11
    came_after = [asked("GET", "a", 15, 20 + SECOND, 5, wait=1)] * 30
    assert list_wakes(rows, [mover, *came_after]) == []
    assert check_wakes(list_wakes(rows, [mover, *late]), [question]) != []
    assert check_wakes(list_wakes(rows, [mover, *late, *soon]), [question]) == []
