"""The history checker finds each contradiction, and none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core.log import LogRow, chain_hash
from app.core.position import Kind
from proof.checker import Row, Terms, check
from proof.history import Attempt, read_attempts, write_attempts

TERMS = Terms({"a": "count", "b": "count"}, {"a": timedelta(seconds=1)})
START = datetime(2026, 1, 1, tzinfo=UTC)


def log(*changes: dict[str, Any]) -> list[Row]:
    """A sound log: the import, then a row for each of `changes` to an update of `a`."""
    rows, previous = [], ""
    for seq, change in enumerate([{"kind": Kind.IMPORT, "key": None}, *changes], 1):
        at = START + timedelta(seconds=seq)
        plain = LogRow(
            chart="c",
            version=1,
            run=1,
            visit=1,
            seq=seq,
            at=at,
            kind=Kind.UPDATE,
            from_state="a",
            to_state="a",
            key="count",
            value_before=seq - 2,
            value_after=seq - 1,
        )
        logged = replace(plain, **change)
        previous = chain_hash(previous, logged)
        rows.append(Row(logged, previous))
    return rows


def put(called: int, returned: int, status: int | None = 200, seq: int | None = None, **fields: Any) -> Attempt:
    return Attempt("c", "PUT", "a", called, returned, status, seq=seq, **fields)


def get(called: int, returned: int, state: str, status: int = 200, seq: int | None = None) -> Attempt:
    return Attempt("c", "GET", state, called, returned, status, seq=seq)


def problems(rows: Sequence[Row], *attempts: Attempt) -> str:
    return "; ".join(check(rows, attempts, TERMS))


M: dict[str, Any] = {"machine": "m"}
K: dict[str, Any] = {"idempotency_key": "k"}
MOVE = {"kind": Kind.TRANSITION, "to_state": "b"}
CLOCK: dict[str, Any] = {"kind": Kind.TIMEOUT, "to_state": "b", "key": "elapsed"}
# Nanoseconds after the import at which the clock of `a` is due.
LATE = 2 * 10**9

SOUND: dict[str, tuple[list[Row], list[Attempt]]] = {
    "nothing happened": (log(), []),
    "each yes has its row": (log({}, M), [put(1, 2, seq=2), put(3, 4, seq=3, **M)]),
    "two at a time are in either order": (log(M, K), [put(1, 9, seq=3, **K), put(2, 8, seq=2, **M)]),
    "an unknown one was applied": (log(K), [put(1, 9, None, **K)]),
    "an unknown one was not applied": (log(), [put(1, 9, None, **K)]),
    "an unknown one was applied late": (log({}, K), [put(1, 2, None, **K), put(3, 4, seq=2)]),
    "a replay of one that was unknown": (log(K), [put(1, 2, None, **K), put(3, 4, seq=2, replay=True, **K)]),
    "a replay by key is about its row, although more is known": (
        log(K, {}),
        [put(1, 2, seq=2, **K), put(3, 4, seq=3), put(5, 6, seq=2, replay=True, value=1, **K)],
    ),
    "a yes without a seq": (log(M), [put(1, 2, **M)]),
    "a no": (log(MOVE), [put(1, 2, seq=2), put(3, 4, 406, 2)]),
    "not applied, and tried again": (
        log(K),
        [put(1, 2, 503, outcome="not_applied", **K), put(3, 4, seq=2, **K)],
    ),
    "a question during a move": (log(MOVE), [put(1, 9, seq=2), get(2, 3, "a"), get(4, 5, "b"), get(6, 7, "a", 406)]),
    "a question whose seq fits": (log(MOVE), [put(1, 2, seq=2), get(3, 4, "b", 200, 2), get(3, 4, "a", 406, 2)]),
    "a report that moved": (
        log(M, M | {"key": "failed"}, M),
        [put(1, 2, seq=2, **M), put(3, 4, seq=3, key="failed", **M), put(5, 6, seq=4, **M)],
    ),
    "a clock that was due": (log(CLOCK), [get(1, 2, "b")]),
    "a clock that was due and not yet written": (log(CLOCK), [get(1, LATE, "b", 200, 1), get(1, LATE, "a", 406, 1)]),
    "a plain answer of a clock not yet written, and the same answer with its seq after it": (
        log(CLOCK),
        [get(1, LATE, "a", 406), get(1, LATE, "b"), get(LATE + 1, LATE + 2, "a", 406, 1)],
    ),
    "a report judged before the deadline that is written after it": (
        log(M | {"at": START + timedelta(seconds=1.5)}, CLOCK),
        [put(1, LATE, seq=2, **M), get(2, LATE, "b", 200, 1)],
    ),
    "a clock that is due at the end of the log": (log(), [get(1, LATE, "b", 200, 1)]),
    "a pause": (log({"kind": Kind.PAUSE, "key": None}), [get(1, 2, "a", 406), get(1, 2, "b", 406)]),
}


@pytest.mark.parametrize(("rows", "attempts"), SOUND.values(), ids=SOUND)
def test_nothing_is_found_when(rows: list[Row], attempts: list[Attempt]) -> None:
    assert check(rows, attempts, TERMS) == []


def without(rows: list[Row], seq: int) -> list[Row]:
    return [row for row in rows if row.logged.seq != seq]


def edited(rows: list[Row], seq: int, **change: Any) -> list[Row]:
    return [Row(replace(row.logged, **change), row.hash) if row.logged.seq == seq else row for row in rows]


BROKEN: dict[str, tuple[list[Row], list[Attempt], str]] = {
    "the log is gone": ([], [], "the log is empty"),
    "a row is missing": (without(log({}, {}), 2), [], "seq 3 stands where 2 should"),
    "a row was edited": (edited(log({}), 2, value_after=7), [put(1, 2, seq=2)], "hash does not fit"),
    "a machine counted twice": (log(M, M), [put(1, 2, seq=2, **M), put(3, 4, seq=3, **M)], "counted twice"),
    "the clock was early": (
        log({"kind": Kind.TIMEOUT, "to_state": "b", "key": "elapsed", "at": START + timedelta(seconds=1.5)}),
        [],
        "the clock moved the chart after",
    ),
    "an acknowledged one is lost": (log(), [put(1, 2, seq=2)], "not its row"),
    "an acknowledged one without a seq is lost": (log(), [put(1, 2, **M)], "is not in the log"),
    "it was answered another's row": (
        log(M, K),
        [put(1, 9, seq=2, **M), put(2, 8, seq=2, **K)],
        "answered 200 with seq 2, which is not its row",
    ),
    "two were answered one row": (log({}), [put(1, 2, seq=2), put(1, 2, seq=2)], "answered seq 2 2 times"),
    "a key was applied twice": (log(K, K), [put(1, 2, None, **K), put(3, 4, seq=3, **K)], "applied more than once"),
    "an unknown one was applied twice": (log({}, {}), [put(1, 2, None)], "but its 1 attempts"),
    "a refused one was applied": (log(K), [put(1, 2, 406, **K)], "answered ['406']"),
    "what was said not to be applied was": (
        log(K),
        [put(1, 2, 503, outcome="not_applied", **K)],
        "answered ['503']",
    ),
    "nobody sent it": (log(K), [], "nobody sent it"),
    "the log turns time round": (
        log(M, K),
        [put(1, 2, seq=3, **K), put(3, 4, seq=2, **M)],
        "reflects seq 3, but 1 was known before and 1 begun",
    ),
    "a write goes before what was read": (
        log(MOVE, {}),
        [put(1, 9, seq=2), put(1, 9, seq=3), get(2, 3, "b", 200, 3), put(4, 5, seq=2)],
        "reflects seq 2, but 3",
    ),
    "a question hears the past": (log(MOVE), [put(1, 2, seq=2), get(3, 4, "a")], "no version from 2 to 2"),
    "a question is refused by the past": (log(MOVE), [put(1, 2, seq=2), get(3, 4, "b", 406)], "no version from 2"),
    "a question hears the future": (log(MOVE), [get(1, 2, "b"), put(3, 4, seq=2)], "no version from 1 to 1"),
    "a question goes back behind another": (
        log(MOVE),
        [put(1, 9, seq=2), get(2, 3, "b"), get(4, 5, "a")],
        "no version from 2 to 2",
    ),
    "a question's seq is of another state": (log(MOVE), [put(1, 2, seq=2), get(3, 4, "a", 200, 2)], "state was 'b'"),
    "a clock struck early for a question": (log(CLOCK), [get(1, 2, "b", 200, 1)], "where the state was 'a'"),
    "a clock led to another state in a plain answer": (log(CLOCK), [get(1, LATE, "c")], "no version from 1 to 2"),
    "a clock led to another state": (log(CLOCK), [get(1, LATE, "c", 200, 1)], "where the state was 'a'"),
    "a report followed, not the clock": (
        log(M),
        [put(1, 2, seq=2, **M), get(1, LATE, "b", 200, 1)],
        "where the state was 'a'",
    ),
    "a no while it was the state": (log({}), [put(1, 2, seq=2), put(3, 4, 406, 2)], "where that was the state"),
    "a seq that there is not": (log(), [get(1, 2, "a", 200, 5)], "reflects seq 5"),
    "a replay of nothing": (log(M), [put(1, 2, seq=2, **M), put(3, 4, seq=2, replay=True, **K)], "not in the log"),
    "a replay before its time": (
        log(M, K),
        [put(1, 2, seq=2, **M), put(3, 4, seq=3, replay=True, **K), put(5, 6, seq=3, **K)],
        "replays what was not applied up to seq 2",
    ),
    "a replay by key that is about another row": (
        log(K, {}),
        [put(1, 2, seq=2, **K), put(3, 4, seq=3), put(5, 6, seq=3, replay=True, **K)],
        "replays seq 3, but seq 2 has its Idempotency-Key",
    ),
    "a replay by key with the value of today": (
        log(K, {}),
        [put(1, 2, seq=2, **K), put(3, 4, seq=3), put(5, 6, seq=2, replay=True, value=2, **K)],
        "with 2, and its row, seq 2, says 1",
    ),
    "a machine's replay that hears the past": (
        log(M, {}),
        [put(1, 2, seq=2, **M), put(3, 4, seq=3), put(5, 6, seq=2, replay=True, **M)],
        "reflects seq 2, but 3 was known before",
    ),
    "the service failed": (log(), [get(1, 2, "a", 500)], "1 x GET answered 500"),
    "the service refused the form": (log(), [put(1, 2, 422, **K)], "1 x PUT answered 422"),
}


@pytest.mark.parametrize(("rows", "attempts", "problem"), BROKEN.values(), ids=BROKEN)
def test_contradiction_is_found_when(rows: list[Row], attempts: list[Attempt], problem: str) -> None:
    assert problem in problems(rows, *attempts)


def test_attempts_are_read_as_they_were_written(tmp_path: Path) -> None:
    attempts = [put(1, 2, seq=2, **M), put(3, 4, None, outcome="unknown", **K), get(5, 6, "ä b", 406)]
    write_attempts(tmp_path / "attempts", attempts)
    assert list(read_attempts(tmp_path / "attempts")) == attempts
