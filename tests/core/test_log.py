"""A row's canonical JSON and the chain of hashes, compared with values worked out by hand."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from app.core.log import COLUMNS, FIRST_COLUMNS, LogRow, canonical, chain_hash, format_instant, read_marker
from app.core.position import Kind
from app.models import transition_log
from tests.support.docs import ROOT

FIRST = LogRow(
    chart="web",
    version=1,
    run=1,
    visit=1,
    seq=1,
    at=datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC),
    kind="import",
    from_state="canary",
    to_state="canary",
)
SECOND = LogRow(
    chart="web",
    version=1,
    run=1,
    visit=1,
    seq=2,
    at=datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC),
    kind="transition",
    from_state="canary",
    to_state="done",
    key="count",
    value_before=0,
    value_after=1,
    machine="wëb-01",
    actor="ann",
    remote_addr="192.0.2.7",
    idempotency_key="k-1",
)

# The worked example: what is hashed, and what `printf %s TEXT | sha256sum` makes of it.
FIRST_TEXT = (
    '{"actor":null,"at":"2026-01-31T12:00:00.250000Z","chart":"web","from_state":"canary","idempotency_key":null,'
    '"key":null,"kind":"import","machine":null,"reason":null,"remote_addr":null,"run":1,"seq":1,"to_state":"canary",'
    '"value_after":null,"value_before":null,"version":1,"visit":1}'
)
FIRST_HASH = "9f4810cb98e501fb5c7d396c1eb3faf2d048ff4aca1dbe6f5e1aa9d7974b3fca"
SECOND_TEXT = (
    '{"actor":"ann","at":"2026-01-31T12:00:01.000000Z","chart":"web","from_state":"canary","idempotency_key":"k-1",'
    '"key":"count","kind":"transition","machine":"wëb-01","reason":null,"remote_addr":"192.0.2.7","run":1,"seq":2,'
    '"to_state":"done","value_after":1,"value_before":0,"version":1,"visit":1}'
)
SECOND_HASH = "a129cb6e8248d33a4b1ff65d55475a7b965839525ba797de9dfc64c52c2d4447"


@pytest.mark.parametrize(("row", "text"), [(FIRST, FIRST_TEXT), (SECOND, SECOND_TEXT)], ids=["first", "second"])
def test_canonical_is_sorted_json_without_spaces(row: LogRow, text: str) -> None:
    assert canonical(row) == text


def test_first_hash_is_chained_to_the_empty_text() -> None:
    assert chain_hash("", FIRST) == FIRST_HASH == hashlib.sha256(FIRST_TEXT.encode()).hexdigest()


def test_next_hash_covers_the_first_hash_as_hexadecimal_text() -> None:
    expected = hashlib.sha256((FIRST_HASH + SECOND_TEXT).encode()).hexdigest()
    assert chain_hash(FIRST_HASH, SECOND) == SECOND_HASH == expected


def test_hash_with_a_key_is_an_hmac() -> None:
    expected = hmac.new(b"secret", (FIRST_HASH + SECOND_TEXT).encode(), hashlib.sha256).hexdigest()
    assert chain_hash(FIRST_HASH, SECOND, b"secret") == expected


def test_columns_are_those_of_the_table_without_id_and_hash() -> None:
    assert set(COLUMNS) == {column.name for column in transition_log.columns} - {"id", "hash"}


def test_canonical_has_every_column() -> None:
    assert set(json.loads(canonical(replace(FIRST, note="abc")))) == set(COLUMNS)
    assert set(json.loads(canonical(FIRST))) == FIRST_COLUMNS


@pytest.mark.parametrize("column", [item.name for item in fields(LogRow)])
def test_hash_changes_with_column(column: str) -> None:
    value = getattr(SECOND, column)
    if isinstance(value, datetime):
        changed: object = value + timedelta(microseconds=1)
    else:
        changed = value + 1 if isinstance(value, int) else f"{value}x"
    assert chain_hash("", replace(SECOND, **{column: changed})) != chain_hash("", SECOND)


def test_null_is_hashed_differently_from_the_text_null() -> None:
    assert chain_hash("", replace(SECOND, reason="null")) != chain_hash("", SECOND)


LOGS = json.loads((ROOT / "tests/golden/log-rows.json").read_text())


def golden_rows(log: dict[str, Any]) -> list[tuple[LogRow, str]]:
    """Return a log's rows with their hashes."""
    rows = [dict(fields) for fields in log["rows"]]
    hashes = [fields.pop("hash") for fields in rows]
    read = [LogRow(**{**fields, "at": datetime.fromisoformat(fields["at"])}) for fields in rows]
    return list(zip(read, hashes, strict=True))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log["name"])
def test_hashes_of_the_first_release_verify_for_ever(log: dict[str, Any]) -> None:
    previous, key = "", None if log["log_key"] is None else log["log_key"].encode()
    for row, row_hash in golden_rows(log):
        assert chain_hash(previous, row, key) == row_hash
        previous = read_marker(row).hash if row.kind == Kind.PRUNE else row_hash


# The golden rows are those of the first release and never change; these kinds came later.
LATER_KINDS = {Kind.WITHDRAW, Kind.OPEN, Kind.CALENDAR, Kind.LATE, Kind.ROSTER}


def test_golden_rows_have_every_kind_and_column_of_the_first_release() -> None:
    rows = [row for log in LOGS for row, _ in golden_rows(log)]
    assert {row.kind for row in rows} == set(map(str, set(Kind) - LATER_KINDS))
    assert {name for row in rows for name in COLUMNS if getattr(row, name) is not None} == FIRST_COLUMNS


def test_row_comes_back_from_its_values() -> None:
    assert LogRow.from_values(getattr(SECOND, name) for name in COLUMNS) == SECOND


INSTANTS = [
    pytest.param(datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000000Z", id="whole seconds"),
    pytest.param(datetime(2026, 1, 31, 12, 0, 0, 7, tzinfo=UTC), "2026-01-31T12:00:00.000007Z", id="microseconds"),
    pytest.param(
        datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))), "2026-01-31T10:00:00.000000Z", id="an offset"
    ),
    pytest.param(datetime(7, 1, 1, tzinfo=UTC), "0007-01-01T00:00:00.000000Z", id="an early year"),
]


@pytest.mark.parametrize(("instant", "text"), INSTANTS)
def test_instant_is_iso_8601_in_utc_with_microseconds(instant: datetime, text: str) -> None:
    assert format_instant(instant) == text
