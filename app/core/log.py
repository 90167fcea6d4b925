"""Rows of the transition log: what each says, the hash that chains it to the row before, and the row a prune leaves.

**A log that can grow.** A hash covers the row as canonical JSON, and a hash that was written once must verify for
ever. So the columns of the first release, `FIRST_COLUMNS`, are always part of the JSON, and a column that was added
later is part of it only if it is not null. A row written before the column existed keeps its hash, and a value in the
new column is protected like any other. To add a column, add a field with the default None to `LogRow`, and leave
`FIRST_COLUMNS` alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Self

from app.core.errors import LogDamagedError
from app.core.position import Kind, PastVisit, Position, Slot
from app.core.window import NO_HOURS, Hours, Interval

# The columns of the first release. This list never changes: old hashes depend on it.
FIRST_COLUMNS = frozenset(
    {
        "chart",
        "version",
        "run",
        "visit",
        "seq",
        "at",
        "kind",
        "from_state",
        "to_state",
        "key",
        "value_before",
        "value_after",
        "machine",
        "actor",
        "remote_addr",
        "idempotency_key",
        "reason",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
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
    note: str | None = None

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> Self:
        """Return the row with these values, which are in the order of `COLUMNS`, as a query yields them."""
        return cls(**dict(zip(COLUMNS, values, strict=True)))

    def as_json(self) -> dict[str, Any]:
        """Return every column by name, with the instant as ISO 8601 UTC."""
        values = dict(zip(COLUMNS, _values_of(self), strict=True))
        values["at"] = format_instant(self.at)
        return values


COLUMNS = tuple(item.name for item in fields(LogRow))
_values_of = attrgetter(*COLUMNS)
_LATER_COLUMNS = tuple(name for name in COLUMNS if name not in FIRST_COLUMNS)
# A shared encoder: `verify` hashes the whole log again.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


# A PUT writes its own instant in the log's row, in its hash, in the chart's row, in the report and in the answer.
@lru_cache(maxsize=256)
def format_instant(instant: datetime) -> str:
    """Return an aware instant as ISO 8601 UTC with microseconds, the form that the log, its hash and the API share."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    # isoformat, not strftime: the latter does not pad the year on every platform.
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def canonical(row: LogRow) -> str:
    """Return the row as the JSON that is hashed: sorted keys, no spaces, UTF-8 characters as they are.

    Columns that are not in `FIRST_COLUMNS` are left out if they are null.
    """
    values = row.as_json()
    for name in _LATER_COLUMNS:
        if values[name] is None:
            del values[name]
    return _encode(values)


def chain_hash(previous: str, row: LogRow, key: bytes | None = None) -> str:
    """Return the row's hash: SHA-256, or HMAC-SHA-256 with `key`, of the previous hash (hex) and the canonical row.

    For the first row of a chart, `previous` is the empty text.
    """
    return chain_text(previous, canonical(row), key)


def chain_text(previous: str, text: str, key: bytes | None = None) -> str:
    """Return what `chain_hash` returns for the row whose canonical JSON is `text`."""
    message = (previous + text).encode()
    if key is None:
        return hashlib.sha256(message).hexdigest()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


MICROSECOND = timedelta(microseconds=1)
_INSTANTS = ("claimed_at", "renewed_at", "expires_at", "expired_at")


@dataclass(frozen=True, slots=True)
class Imported:
    """What the row of a version's import or upgrade says: the SHA-256 of its text, when, and who.

    A row that an older release wrote has no hash. After a prune only the hash is known.
    """

    sha256: str | None
    at: datetime | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Pauser:
    """Who paused a chart, and why; both None if it is not paused."""

    paused_by: str | None
    reason: str | None


NOT_PAUSED = Pauser(None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The checkpoint that `prune` writes: where a chart stood after the last row that was deleted.

    `hash` is that row's hash, to which the next row is chained. `reports` maps each machine that reported in the
    visit to the attribute that it counted on, or to None if an upgrade has dropped that attribute. `imports` has the
    hash of each version's text, as far as the rows had it. `pauser` is None in a marker that an older release wrote.
    `past` has the run's visits before, of those states whose reports later states may ask for.
    """

    position: Position
    reports: Mapping[str, str | None]
    is_archived: bool
    hash: str
    pruned_at: datetime
    imports: Mapping[int, Imported] = field(default_factory=dict)
    pauser: Pauser | None = None
    past: Mapping[int, PastVisit] = field(default_factory=dict)

    def as_row(self, last: LogRow, actor: str | None) -> LogRow:
        """Return the row that replaces `last`; it keeps `at`, so that the log is still in the order of time."""
        here = self.position
        return LogRow(
            chart=last.chart,
            version=here.version,
            run=here.run,
            visit=here.visit,
            seq=last.seq,
            at=last.at,
            kind=str(Kind.PRUNE),
            from_state=here.state,
            to_state=here.state,
            actor=actor,
            reason=self.as_text(),
        )

    def as_text(self) -> str:
        """Return the marker as JSON, without what the columns of its row say already."""
        here = self.position
        return json.dumps(
            {
                "archived": self.is_archived,
                "entered_at": format_instant(here.entered_at),
                "fence": here.fence,
                **({} if here.hours == NO_HOURS else {"hours": write_hours(here.hours)}),
                "hash": self.hash,
                "pause": None if self.pauser is None else [self.pauser.paused_by, self.pauser.reason],
                "paused_at": None if here.paused_at is None else format_instant(here.paused_at),
                "paused_for": here.paused_for // MICROSECOND,
                "pruned_at": format_instant(self.pruned_at),
                "renamed": dict(here.renamed),
                "reports": dict(self.reports),
                "slots": [_write_slot(slot) for slot in here.slots.values()],
                "texts": {str(version): item.sha256 for version, item in self.imports.items() if item.sha256},
                "values": dict(here.values),
                **self._say_who_takes_part(),
            },
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )

    def _say_who_takes_part(self) -> dict[str, Any]:
        """Return what only a chart that looks up its machines has."""
        here, said = self.position, dict[str, Any]()
        if here.expected is not None:
            said["expected"] = here.expected
        if here.rosters:
            said["rosters"] = dict(here.rosters)
        if self.past:
            said["past"] = {str(number): [item.state, dict(item.reports)] for number, item in self.past.items()}
        return said


def read_marker(row: LogRow) -> Marker:
    """Return the marker in the `reason` of a row of the kind `prune`. Raises LogDamagedError if it cannot be read."""
    try:
        return _read(row, json.loads(row.reason or ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LogDamagedError(f"{row.chart}: seq {row.seq}: the prune's marker cannot be read") from None


def _read(row: LogRow, fields: dict[str, Any]) -> Marker:
    position = Position(
        version=row.version,
        run=row.run,
        visit=row.visit,
        state=row.to_state,
        values=fields["values"],
        entered_at=datetime.fromisoformat(fields["entered_at"]),
        paused_at=None if fields["paused_at"] is None else datetime.fromisoformat(fields["paused_at"]),
        paused_for=timedelta(microseconds=fields["paused_for"]),
        fence=fields["fence"],
        slots={slot["machine"]: _read_slot(slot) for slot in fields["slots"]},
        # A marker that an older release wrote has none.
        renamed=fields.get("renamed", {}),
        rosters=fields.get("rosters", {}),
        expected=fields.get("expected"),
        hours=read_hours(fields.get("hours", {})),
    )
    # A marker that an older release wrote has neither.
    texts, pause = fields.get("texts", {}), fields.get("pause")
    past = {int(number): PastVisit(state, reports) for number, (state, reports) in fields.get("past", {}).items()}
    return Marker(
        position=position,
        reports=fields["reports"],
        is_archived=fields["archived"],
        hash=fields["hash"],
        pruned_at=datetime.fromisoformat(fields["pruned_at"]),
        imports={int(version): Imported(sha256) for version, sha256 in texts.items()},
        pauser=None if pause is None else Pauser(*pause),
        past=past,
    )


def write_hours(hours: Hours) -> dict[str, Any]:
    """Return what a log or a table keeps of `hours`, as values for JSON; parts that say nothing are left out."""
    kept = {
        "openings": [[format_instant(item.start), format_instant(item.end)] for item in hours.openings],
        "pauses": [[format_instant(item.start), format_instant(item.end)] for item in hours.pauses],
        "calendars": dict(hours.calendars),
    }
    return {name: value for name, value in kept.items() if value}


def read_hours(fields: Mapping[str, Any]) -> Hours:
    """Return the hours that `write_hours` wrote, without the calendars' events."""
    if not fields:
        return NO_HOURS
    return Hours(
        openings=tuple(_read_interval(item) for item in fields.get("openings", ())),
        pauses=tuple(_read_interval(item) for item in fields.get("pauses", ())),
        calendars=tuple(sorted(fields.get("calendars", {}).items())),
    )


def _read_interval(item: Sequence[str]) -> Interval:
    start, end = item
    return Interval(datetime.fromisoformat(start), datetime.fromisoformat(end))


def _write_slot(slot: Slot) -> dict[str, Any]:
    fields = {name: getattr(slot, name) for name in Slot.__slots__}
    return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def _read_slot(fields: dict[str, Any]) -> Slot:
    instants = {name: datetime.fromisoformat(fields[name]) for name in _INSTANTS if fields[name] is not None}
    return Slot(**{**fields, **instants})


@dataclass(frozen=True, slots=True)
class Author:
    """Who caused a row of the log, and from which address.

    `may_report` and `may_approve` say on which states the author may report: those of machines, those of approvers.
    """

    actor: str | None = None
    remote_addr: str | None = None
    idempotency_key: str | None = None
    may_report: bool = True
    may_approve: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """Which rows of a chart's log are wanted; None means that any value will do.

    Their seq is above `after`, and their time is from `since` on and before `until`. `words` is a text that the reason
    or the note contains, in either case of its letters. `limit` is how many at most.
    """

    after: int = 0
    limit: int | None = None
    kind: str | None = None
    machine: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class HashedRow:
    """A row of the log with the hash that it was written with."""

    row: LogRow
    hash: str

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Return the names of the columns in the order of `as_json`."""
        return (*COLUMNS, "hash")

    def as_json(self) -> dict[str, Any]:
        """Return the row's columns and its hash; the instant is ISO 8601 UTC, as it was hashed."""
        return {**self.row.as_json(), "hash": self.hash}
