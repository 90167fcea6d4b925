"""Reading a chart's log again and holding it against the live tables."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from app import store
from app.core.errors import LogDamagedError, StateServiceError
from app.core.log import chain_hash
from app.core.machine import next_due
from app.core.replay import Replay
from app.db import snapshot
from app.service.context import Service


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a chart's log again came to; no `differences` means that all is well."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()


def list_logged_charts(service: Service) -> list[str]:
    """Every chart that has a log, archived ones too, by name."""
    with snapshot(service.database) as connection:
        return store.list_all_chart_names(connection)


def verify(service: Service, name: str, progress: Callable[[int], None] = lambda rows: None) -> Verification:
    """Replay the log of a chart, check its chain, and compare the end with the live position and values.

    `progress` is called with the number of rows read so far. Raises ChartNotFoundError.
    """
    with snapshot(service.database) as connection:
        row = store.get_chart_even_archived(connection, name)
        replay = Replay(lambda version: service.definitions.get_version(connection, row, version))
        last_hash, damage = "", None
        try:
            last_hash = _read(service, connection, row, replay, progress)
        except (LogDamagedError, StateServiceError) as error:
            damage = str(error)
        if damage is not None:
            return Verification(name, replay.seq, (damage,))
        return Verification(name, replay.seq, tuple(_compare(connection, row, replay, last_hash)))


def _read(
    service: Service, connection: Connection, row: store.ChartRow, replay: Replay, progress: Callable[[int], None]
) -> str:
    last_hash = ""
    for logged in store.stream_history(connection, row.name):
        wanted = chain_hash(last_hash, logged.row, service.database.log_key)
        if not hmac.compare_digest(wanted, logged.hash):
            raise LogDamagedError(f"{row.name}: seq {logged.row.seq}: the hash does not fit the row and its chain")
        replay.apply(logged.row)
        last_hash = logged.hash
        progress(replay.seq)
    return last_hash


def _compare(connection: Connection, row: store.ChartRow, replay: Replay, last_hash: str) -> list[str]:
    position = replay.position
    if position is None:
        return [f"{row.name}: the log is empty"]
    held, _, _ = store.read_slots(connection, row)
    due_at = None if replay.is_archived else next_due(replay.chart_of(position.version), position)
    pairs = [
        ("seq", replay.seq, row.seq),
        ("hash of the last row", last_hash, row.last_hash),
        ("version", position.version, row.version),
        ("run", position.run, row.run),
        ("visit", position.visit, row.visit),
        ("state", position.state, row.state),
        ("entered_at", position.entered_at, row.entered_at),
        ("paused_at", position.paused_at, row.paused_at),
        ("paused_for", position.paused_for, timedelta(microseconds=row.paused_for)),
        ("due_at", due_at, row.due_at),
        ("archived", replay.is_archived, row.archived_at is not None),
        ("values", dict(position.values), store.read_values(connection, row.id)),
        ("reports", replay.reports, store.read_reports(connection, row)),
        ("slots", dict(position.slots), held),
        ("fence", position.fence, row.fence),
    ]
    return [
        f"{row.name}: {name}: the log gives {logged!r}, the tables have {live!r}"
        for name, logged, live in pairs
        if logged != live
    ]
