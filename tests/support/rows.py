"""Rows written by hand, for tests of the database itself: a chart and its history without the service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from app.models import (
    attribute_values,
    attributes,
    chart_versions,
    charts,
    reports,
    roster,
    slots,
    states,
    transition_log,
    transitions,
    visits,
)

NOON = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


def log_row(seq: int, chart: str = "web", **columns: Any) -> dict[str, Any]:
    return {
        "chart": chart,
        "version": 1,
        "run": 1,
        "visit": 1,
        "seq": seq,
        "at": NOON,
        "kind": "update",
        "from_state": "canary",
        "to_state": "canary",
        "idempotency_key": None,
        "hash": "0" * 64,
    } | columns


def chart_row(**columns: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "web",
        "version": 2,
        "run": 1,
        "visit": 2,
        "state": "canary",
        "entered_at": NOON,
        "seq": 7,
        "last_hash": "0" * 64,
        "created_at": NOON,
        "updated_at": NOON,
    } | columns


def version_row(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "id": number,
        "chart_id": 1,
        "version": number,
        "text": "",
        "sha256": "0" * 64,
        "description": "",
        "initial_state": "canary",
        "has_roster": False,
        "require_machine": False,
        "imported_at": NOON,
    } | columns


def guard_row(position: int, key: str, **columns: Any) -> dict[str, Any]:
    row = {"state_id": 2, "position": position, "target": "done", "key": key, "value": "x"}
    return row | {"op": None, "threshold": None, "age": None} | columns


def insert_chart(connection: Connection, **columns: Any) -> None:
    """A chart `web` in its state `canary`, whose first attribute `count` stands at 3, of 5 needed."""
    connection.execute(insert(charts), chart_row(**columns))
    connection.execute(insert(chart_versions), [version_row(1), version_row(2)])
    listed = [{"version_id": 2, "machine": machine, "position": i} for i, machine in enumerate(["web-01", "web-09"])]
    connection.execute(insert(roster), listed)
    named = [(1, 1, "canary", "increment"), (2, 2, "canary", "increment"), (3, 2, "done", None)]
    connection.execute(
        insert(states),
        [
            {"id": id_, "version_id": version, "position": id_, "name": name, "func": func, "description": ""}
            for id_, version, name, func in named
        ],
    )
    keys = [(1, 1, "old", 0), (2, 1, "count", 0), (2, 2, "failed", 0)]
    connection.execute(
        insert(attributes),
        [{"state_id": state, "position": position, "key": key, "value": v} for state, position, key, v in keys],
    )
    connection.execute(
        insert(transitions),
        [
            guard_row(1, "elapsed", age=60_000_000),
            guard_row(2, "failed", op=">=", threshold=1),
            guard_row(3, "count", op=">=", threshold=5),
            guard_row(4, "count", op=">=", threshold=9),
        ],
    )
    values = [("count", 3), ("failed", 1)]
    connection.execute(insert(attribute_values), [{"chart_id": 1, "key": key, "value": v} for key, v in values])
    insert_visits(connection)


def insert_visits(connection: Connection) -> None:
    left = NOON + timedelta(days=1, seconds=90, microseconds=-125_001)
    connection.execute(
        insert(visits),
        [
            {"chart_id": 1, "run": 1, "visit": 1, "state": "boot", "entered_at": NOON, "left_at": left},
            {"chart_id": 1, "run": 1, "visit": 2, "state": "canary", "entered_at": datetime.now(UTC), "left_at": None},
        ],
    )
    reported = [
        (1, "web-01", "count", 3),
        (2, "web-01", "count", 5),
        (2, "web-02", None, 6),
        (2, "web-03", "failed", 7),
    ]
    connection.execute(
        insert(reports),
        [
            {"chart_id": 1, "run": 1, "visit": visit, "machine": machine, "key": key, "seq": seq, "reported_at": NOON}
            for visit, machine, key, seq in reported
        ],
    )


def insert_history(connection: Connection) -> None:
    """The log of the chart `web`, and who holds a slot: something for every question of docs/sql.md."""
    kinds = [
        {"kind": "import", "from_state": "boot", "to_state": "boot"},
        {"kind": "update", "from_state": "boot", "to_state": "boot", "machine": "web-01", "key": "count"},
        {"kind": "transition", "from_state": "boot", "machine": "web-02", "key": "count", "visit": 1},
        {"kind": "upgrade", "version": 2, "visit": 2, "actor": "ann", "reason": "wider"},
        {"kind": "update", "version": 2, "visit": 2, "machine": "web-01", "key": "count", "remote_addr": "192.0.2.7"},
        {"kind": "update", "version": 2, "visit": 2, "machine": "web-03", "key": "failed"},
        {"kind": "pause", "version": 2, "visit": 2, "actor": "ann", "reason": "disk errors"},
    ]
    for seq, columns in enumerate(kinds, start=1):
        connection.execute(insert(transition_log), log_row(seq, **columns))
    claim = {"chart_id": 1, "machine": "web-01", "fence": 1, "claimed_at": NOON, "renewed_at": NOON}
    connection.execute(insert(slots), claim)
