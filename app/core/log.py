"""Rows of the transition log: what each says, the hash that chains it to the row before, and the row a prune leaves."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from app.core.errors import LogDamagedError
from app.core.position import Kind, Position, Slot


@dataclass(frozen=True, slots=True)
class LogRow:
    """One row of `transition_log`, without its `id` and `hash`; the fields are the columns."""

    chart: str
    version: int
    run: int
    visit: int
    seq: int
    at: datetime
    kind: str
    from_state: str
    to_state: str
    key: str | None = None
    value_before: int | None = None
    value_after: int | None = None
    machine: str | None = None
    actor: str | None = None
    remote_addr: str | None = None
    idempotency_key: str | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The columns by name, the instant as ISO 8601 UTC."""
        values = dict(zip(COLUMNS, _values_of(self), strict=True))
        values["at"] = format_instant(self.at)
        return values


COLUMNS = tuple(item.name for item in fields(LogRow))
_values_of = attrgetter(*COLUMNS)
# One for all: a log of a million rows is hashed again by every verify.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def format_instant(instant: datetime) -> str:
    """Return an aware instant as ISO 8601 UTC with microseconds: the one form of the log, its hash and the API."""
    utc = instant.astimezone(UTC)
    # isoformat, not strftime: the latter does not pad the year on every platform.
    return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def canonical(row: LogRow) -> str:
    """Return the row as JSON: sorted keys, no spaces, UTF-8 characters as they are."""
    return _encode(row.as_json())


def chain_hash(previous: str, row: LogRow, key: bytes | None = None) -> str:
    """Return the row's hash: SHA-256, or HMAC-SHA-256 with `key`, of the previous hash (hex) and the canonical row.

    The first row of a chart has the empty text for its previous hash.
    """
    return chain_text(previous, canonical(row), key)


def chain_text(previous: str, text: str, key: bytes | None = None) -> str:
    """As `chain_hash`, of a row whose canonical `text` is at hand."""
    message = (previous + text).encode()
    if key is None:
        return hashlib.sha256(message).hexdigest()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


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


@dataclass(frozen=True, slots=True)
class Author:
    """Who causes a row of the log, and from where."""

    actor: str | None = None
    remote_addr: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which rows of a chart's log are wanted: those after `after`, of one kind, machine and span of time."""

    after: int = 0
    limit: int | None = None
    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class HashedRow:
    """A row of the log with the hash that it was written with."""

    row: LogRow
    hash: str

    @staticmethod
    def columns() -> tuple[str, ...]:
        """The names of the columns, in the order of `as_json`."""
        return (*COLUMNS, "hash")

    def as_json(self) -> dict[str, Any]:
        """The row's columns and its hash; the instant is ISO 8601 UTC, as it was hashed."""
        return {**self.row.as_json(), "hash": self.hash}
