"""The table `checkpoints`: charts as they stood after rows of their logs, at which a replay can begin."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, delete, func, select

from app.db import DIALECTS, Connection, upsert
from app.models import charts, checkpoints, transition_log

_kept, _log = checkpoints.c, transition_log.c


class StoredCheckpoint(NamedTuple):
    """A checkpoint after the row `seq`, as it was written; `row_hash` is what the log has now as that row's hash."""

    seq: int
    hash: str
    marker: bytes
    row_hash: str


def find_checkpoint(connection: Connection, chart: str, last: int) -> StoredCheckpoint | None:
    """Return a chart's latest checkpoint up to the row `last`; None if there is none. Used by: a status of the past."""
    is_row = and_(_log.chart == _kept.chart, _log.seq == _kept.seq)
    query = (
        select(_kept.seq, _kept.hash, _kept.marker, _log.hash)
        .join(transition_log, is_row)
        .where(_kept.chart == chart, _kept.seq <= last)
        .order_by(_kept.seq.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else StoredCheckpoint(*found)


def list_grown(connection: Connection, rows: int) -> list[str]:
    """List the charts whose logs have had `rows` rows since their last checkpoint, or their first row.

    Used by: the thread that leaves checkpoints.
    """
    first = select(func.min(_log.seq)).where(_log.chart == charts.c.name).scalar_subquery()
    latest = select(func.max(_kept.seq)).where(_kept.chart == charts.c.name).scalar_subquery()
    # A short log is passed over before anything is looked up.
    query = select(charts.c.name).where(charts.c.seq >= rows, charts.c.seq - func.coalesce(latest, first) >= rows)
    return list(connection.execute(query.order_by(charts.c.name)).scalars())


def keep_checkpoint(connection: Connection, chart: str, seq: int, hash_: str, marker: bytes) -> None:
    """Write a checkpoint after the row `seq` of a chart's log, in place of one that is there."""
    connection.execute(_KEEP[connection.dialect], {"chart": chart, "seq": seq, "hash": hash_, "marker": marker})


_KEEP = {dialect: upsert(dialect, checkpoints, ["chart", "seq"], ["hash", "marker"]) for dialect in DIALECTS}


def drop_checkpoints(connection: Connection, chart: str, last: int) -> None:
    """Drop a chart's checkpoints up to the row `last`. Used by: a prune."""
    connection.execute(delete(checkpoints).where(_kept.chart == chart, _kept.seq <= last))
