"""A row of the transition log, its canonical text and the hash that chains it to the row before."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any


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
