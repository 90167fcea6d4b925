"""The row that a prune leaves in the place of the last row it took: what the chain and the replay go on from.

It is chained to nothing (its previous hash is empty), and its `reason` is JSON with the hash that the next row is
chained to. So everything that goes on from it is under its own hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.core.errors import LogDamagedError
from app.core.log import LogRow, format_instant
from app.core.position import Kind, Position, Slot

MICROSECOND = timedelta(microseconds=1)
_INSTANTS = ("claimed_at", "renewed_at", "expires_at", "expired_at")


@dataclass(frozen=True, slots=True)
class Marker:
    """Where a chart stood after the last row that a prune took.

    `hash` is that row's.
    """

    position: Position
    reports: Mapping[str, str | None]
    is_archived: bool
    hash: str
    pruned_at: datetime

    def as_row(self, last: LogRow, actor: str | None) -> LogRow:
        """The row to write in the place of `last`; `at` stays, so that the log is still in the order of time."""
        here = self.position
        return LogRow(
            last.chart,
            here.version,
            here.run,
            here.visit,
            last.seq,
            last.at,
            str(Kind.PRUNE),
            here.state,
            here.state,
            actor=actor,
            reason=self.as_text(),
        )

    def as_text(self) -> str:
        """The marker as JSON; what a column of its row says is not said again."""
        here = self.position
        return json.dumps(
            {
                "archived": self.is_archived,
                "entered_at": format_instant(here.entered_at),
                "fence": here.fence,
                "hash": self.hash,
                "paused_at": None if here.paused_at is None else format_instant(here.paused_at),
                "paused_for": here.paused_for // MICROSECOND,
                "pruned_at": format_instant(self.pruned_at),
                "reports": dict(self.reports),
                "slots": [_write_slot(slot) for slot in here.slots.values()],
                "values": dict(here.values),
            },
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )


def read_marker(row: LogRow) -> Marker:
    """Return the marker that a row of the kind `prune` holds. Raises LogDamagedError."""
    try:
        return _read(row, json.loads(row.reason or ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LogDamagedError(f"{row.chart}: seq {row.seq}: the prune's marker cannot be read") from None


def _read(row: LogRow, fields: dict[str, Any]) -> Marker:
    position = Position(
        row.version,
        row.run,
        row.visit,
        row.to_state,
        fields["values"],
        datetime.fromisoformat(fields["entered_at"]),
        None if fields["paused_at"] is None else datetime.fromisoformat(fields["paused_at"]),
        timedelta(microseconds=fields["paused_for"]),
        fields["fence"],
        {slot["machine"]: _read_slot(slot) for slot in fields["slots"]},
    )
    pruned_at = datetime.fromisoformat(fields["pruned_at"])
    return Marker(position, fields["reports"], fields["archived"], fields["hash"], pruned_at)


def _write_slot(slot: Slot) -> dict[str, Any]:
    fields = {name: getattr(slot, name) for name in Slot.__slots__}
    return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def _read_slot(fields: dict[str, Any]) -> Slot:
    instants = {name: datetime.fromisoformat(fields[name]) for name in _INSTANTS if fields[name] is not None}
    return Slot(**{**fields, **instants})
