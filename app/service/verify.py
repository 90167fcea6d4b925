"""Reading a chart's log again and holding it against the live tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import store
from app.core.errors import StateServiceError
from app.core.guards import next_due
from app.core.log import format_instant
from app.core.replay import Replay
from app.db import Connection, snapshot
from app.service.context import Service

# Called now and then with how many rows are read, and of how many.
Progress = Callable[[int, int], None]
PROGRESS_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a chart's log again came to; no `differences` means that all is well."""

    chart: str
    rows: int
    differences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The verification as `--json` gives it."""
        return {"chart": self.chart, "rows": self.rows, "differences": list(self.differences)}

    def as_text(self) -> str:
        """One line if all is well, else a line a difference."""
        if not self.differences:
            return f"{self.chart}: {self.rows} rows, chain and position as they should be\n"
        return "".join(f"{difference}\n" for difference in self.differences)


def list_logged_charts(service: Service) -> list[str]:
    """Every chart that has a log, archived ones too, by name."""
    with snapshot(service.database) as connection:
        return store.list_all_chart_names(connection)


def verify(service: Service, name: str, progress: Progress = lambda read, of: None) -> Verification:
    """Replay the log of a chart, check its chain, and compare the end with the live position and values.

    Raises ChartNotFoundError.
    """
    with snapshot(service.database) as connection:
        row = store.get_chart_even_archived(connection, name)
        replay = Replay(lambda version: service.definitions.get_version(connection, row, version))
        damage = _read(service, connection, row, replay, progress)
        if damage is not None:
            return Verification(name, replay.rows, (damage,))
        return Verification(name, replay.rows, tuple(_compare(connection, row, replay)))


def _read(
    service: Service, connection: Connection, row: store.ChartRow, replay: Replay, progress: Progress
) -> str | None:
    """Read the whole log; return what is wrong with it, where something is."""
    try:
        for logged in store.stream_history(connection, row.name):
            replay.read(logged.row, logged.hash, service.database.log_key)
            if replay.rows % PROGRESS_ROWS == 0:
                progress(replay.rows, row.seq - replay.seq + replay.rows)
    except StateServiceError as error:
        return str(error)
    except (ValueError, TypeError, AttributeError) as error:
        # SQLite keeps whatever was put into a column behind our back.
        return f"{row.name}: the row after seq {replay.seq} cannot be read: {error}"
    progress(replay.rows, replay.rows)
    return None


def _compare(connection: Connection, row: store.ChartRow, replay: Replay) -> list[str]:
    position = replay.position
    if position is None:
        return [f"{row.name}: the log is empty"]
    held, _, _ = store.read_slots(connection, row)
    due_at = None if replay.is_archived else next_due(replay.chart_of(position.version), position)
    pairs = [
        ("seq", replay.seq, row.seq),
        ("hash of the last row", replay.last_hash, row.last_hash),
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
        f"{row.name}: {name}: the log gives {_shown(logged)}, the tables have {_shown(live)}"
        for name, logged, live in pairs
        if logged != live
    ]


def _shown(value: Any) -> str:
    return format_instant(value) if isinstance(value, datetime) else repr(value)
