"""The table `transition_log`: rows are read, sampled, and, by a prune, taken out. `app.store.record` appends them.

The database refuses every other change of a row; a prune is the only code that lifts the triggers which do that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)

from app.core.chart import OnExpire
from app.core.log import COLUMNS, HashedRow, HistoryFilter, LogRow
from app.core.position import CountedRow, Kind, Slot
from app.db import Connection, Prepared, among, listed
from app.models import charts, replayed_keys, transition_log
from app.store.charts import ChartRow

_log = transition_log.c
_COLUMNS = tuple(_log[name] for name in COLUMNS)
_COLUMNS_AND_HASH = (*_COLUMNS, _log.hash)


# Reading

_replayed = replayed_keys.c
_LOGGED = select(
    *(_log.idempotency_key, _log.version, _log.from_state, _log.machine, _log.key),
    *(_log.run, _log.visit, _log.seq, _log.value_after),
).where(_log.chart == bindparam("chart"))
_ASKED = listed("keys", _log.idempotency_key)["postgresql"]
_FIRST = _LOGGED.where(_log.idempotency_key >= _ASKED.c.value).order_by(_log.idempotency_key).limit(1).lateral("first")
_LOGGED_WITH_KEYS = {
    "sqlite": _LOGGED.where(among(_log.idempotency_key, "keys")["sqlite"]),
    # PostgreSQL may take every index that begins with `chart` for equally good. The order leaves it one to choose.
    "postgresql": select(_FIRST).select_from(_ASKED, _FIRST).where(_FIRST.c.idempotency_key == _ASKED.c.value),
}
_WITH_KEYS = Prepared(
    {
        dialect: union_all(
            logged,
            select(
                *(_replayed.idempotency_key, _replayed.version, _replayed.state, _replayed.machine, _replayed.key),
                *(cast(null(), column.type) for column in (_log.run, _log.visit, _log.seq, _log.value_after)),
            ).where(_replayed.chart_id == bindparam("chart_id"), among(_replayed.idempotency_key, "keys")[dialect]),
        )
        for dialect, logged in _LOGGED_WITH_KEYS.items()
    }
)
_REMEMBER_KEY = Prepared(insert(replayed_keys).values({item.name: bindparam(item.name) for item in _replayed}))
# Rows fetched at a time, so that a long history is read with little memory.
BATCH = 2000


class UsedKey(NamedTuple):
    """An Idempotency-Key, and what it was accepted with in the chart's version `version`."""

    idempotency_key: str
    version: int
    state: str
    machine: str | None
    key: str | None


def list_used_keys(
    connection: Connection, row: ChartRow, keys: Collection[str]
) -> list[tuple[UsedKey, CountedRow | None]]:
    """Return those of the Idempotency-Keys `keys` that PUTs on the chart have used, each with the row that counted.

    A PUT that was answered as its machine's replay has no row. Used by: every PUT with a key.
    """
    parameters = {"chart": row.name, "chart_id": row.id, "keys": list(keys)}
    return [
        (UsedKey(*found[:5]), None if found[5] is None else CountedRow(*found[5:]))
        for found in _WITH_KEYS.rows(connection, parameters)
    ]


def remember_keys(connection: Connection, chart_id: int, seq: int, used: Sequence[UsedKey]) -> None:
    """Keep the keys of PUTs that were answered as a machine's replay; `seq` is the chart's last log row."""
    _REMEMBER_KEY.run_all(connection, [{"chart_id": chart_id, "seq": seq, **item._asdict()} for item in used])


def list_history(connection: Connection, chart: str, wanted: HistoryFilter) -> list[HashedRow]:
    """List the rows of a chart's log that pass the filter `wanted`, oldest first."""
    query = _filtered(chart, wanted).order_by(_log.seq).limit(wanted.limit)
    return [_as_hashed_row(row) for row in connection.execute(query)]


def list_latest_history(
    connection: Connection, chart: str, wanted: HistoryFilter, before: int | None, limit: int
) -> list[LogRow]:
    """List up to `limit` rows of a chart's log that pass the filter `wanted`, newest first.

    If `before` is given, only rows before the row with that `seq`.
    """
    query = _filtered(chart, wanted)
    if before is not None:
        query = query.where(_log.seq < before)
    return [_as_log_row(row) for row in connection.execute(query.order_by(_log.seq.desc()).limit(limit))]


# In these words, so that the databases see that the partial index on the log covers it.
# A late report is not an act, and its visit is an earlier one than that of the rows around it.
_IS_ACT = and_(text("transition_log.kind NOT IN ('update', 'claim', 'release')"), _log.kind != str(Kind.LATE))


def list_acts(connection: Connection, row: ChartRow, limit: int) -> list[LogRow]:
    """List the latest rows of a chart's run that are not a machine's update, claim or release, newest first.

    A report that moved the chart is among them. Used by: the reasons of a chart's condition.
    """
    query = select(*_COLUMNS).where(_log.chart == row.name, _log.run == row.run, _log.seq <= row.seq, _IS_ACT)
    return [_as_log_row(row) for row in connection.execute(query.order_by(_log.seq.desc()).limit(limit))]


def list_latest_acts(connection: Connection, chart: str, before: int, limit: int) -> list[LogRow]:
    """List the latest rows before the seq `before` that are not about one machine of many, newest first.

    Used by: the history on a chart's page.
    """
    query = select(*_COLUMNS).where(_log.chart == chart, _log.seq < before, _IS_ACT)
    query = query.where(_log.kind.not_in([str(Kind.EXPIRE), str(Kind.WITHDRAW)]))
    return [_as_log_row(row) for row in connection.execute(query.order_by(_log.seq.desc()).limit(limit))]


def list_rows(connection: Connection, chart: str, seqs: Collection[int]) -> list[LogRow]:
    """List the rows with these numbers, newest first. Used by: the history on a chart's page."""
    query = select(*_COLUMNS).where(_log.chart == chart, _log.seq.in_(seqs)).order_by(_log.seq.desc())
    return [_as_log_row(row) for row in connection.execute(query)] if seqs else []


def count_kinds(
    connection: Connection, chart: str, ranges: Sequence[tuple[int, int]]
) -> dict[int, dict[tuple[str, str | None], int]]:
    """Count the rows of each kind and attribute from a first to a last seq, by the first seq of each range.

    Used by: the history on a chart's page.
    """
    queries = [
        select(literal(first), _log.kind, _log.key, func.count())
        .where(_log.chart == chart, _log.seq.between(first, last))
        .group_by(_log.kind, _log.key)
        for first, last in ranges
    ]
    found: dict[int, dict[tuple[str, str | None], int]] = defaultdict(dict)
    for first, kind, key, count in connection.execute(union_all(*queries)) if queries else ():
        found[first][kind, key] = count
    return found


def find_oldest_seq(connection: Connection, chart: str) -> int:
    """Return the seq of the first row that is still in a chart's log. Used by: the history on a chart's page."""
    seq: int = connection.execute(select(func.min(_log.seq)).where(_log.chart == chart)).scalar_one()
    return seq


def list_open_claims(connection: Connection, chart: str, run: int, visit: int) -> list[LogRow]:
    """List the claims of a visit whose slot was still held when the visit ended, by `seq`.

    Used by: the list of the machines that were at work when the chart moved on.
    """
    before = or_(_log.run < run, and_(_log.run == run, _log.visit < visit))
    after = or_(_log.run > run, and_(_log.run == run, _log.visit > visit))
    # Run and visit never fall as `seq` rises: acts, of which there are few, bound the rows of the visit.
    first = select(func.max(_log.seq)).where(_log.chart == chart, before, _IS_ACT).correlate(None).scalar_subquery()
    last = select(func.min(_log.seq)).where(_log.chart == chart, after, _IS_ACT).correlate(None).scalar_subquery()
    claimed = func.max(case((_log.kind == Kind.CLAIM, _log.seq)))
    ends = or_(
        _log.kind.in_([Kind.RELEASE, Kind.EVICT, Kind.UPDATE, Kind.TRANSITION]),
        and_(_log.kind == Kind.EXPIRE, _log.reason != str(OnExpire.HOLD)),
    )
    ended = func.coalesce(func.max(case((ends, _log.seq))), 0)
    held = (
        select(claimed.label("seq"))
        .where(_log.chart == chart, _log.run == run, _log.visit == visit, _log.machine.is_not(None))
        .where(_log.seq > func.coalesce(first, 0), _log.seq <= func.coalesce(last, literal(2**62)))
        .group_by(_log.machine)
        .having(claimed > ended)
        .subquery()
    )
    query = select(*_COLUMNS).join(held, held.c.seq == _log.seq).where(_log.chart == chart).order_by(_log.seq)
    return [_as_log_row(row) for row in connection.execute(query)]


# How many rows may be of one transaction, in which a claim's row is looked for.
CLAIM_ROWS = 1000


def find_claim_address(connection: Connection, row: ChartRow, slot: Slot) -> str | None:
    """Return the address from which a machine last claimed the slot that it holds; None if the log does not say.

    Used by: the hint that two machines have one id, while the chart is locked. So the claim's row is found by its time,
    by halving the log in one statement: `at` does not fall as `seq` rises. There is no index for the machines.
    """
    span = select(literal(1, BigInteger).label("low"), literal(row.seq, BigInteger).label("high")).cte(
        "span", recursive=True
    )
    middle = (span.c.low + span.c.high) // 2
    # In the place of a row that was pruned, the next one tells. The order has PostgreSQL look for it by `seq`.
    next_row = select(_log.at < slot.renewed_at).where(_log.chart == row.name, _log.seq >= middle)
    is_before = func.coalesce(next_row.order_by(_log.seq).limit(1).scalar_subquery(), true())
    low, high = case((is_before, middle + 1), else_=span.c.low), case((is_before, span.c.high), else_=middle)
    span = span.union_all(select(low, high).where(span.c.low < span.c.high))
    first = select(func.max(span.c.low)).scalar_subquery()
    query = (
        select(_log.remote_addr)
        .where(_log.chart == row.name, _log.seq >= first, _log.seq < first + CLAIM_ROWS)
        .where(_log.at == slot.renewed_at, _log.kind == Kind.CLAIM, _log.machine == slot.machine)
        .order_by(_log.seq)
        .limit(1)
    )
    address: str | None = connection.execute(query).scalar()
    return address


def find_row(connection: Connection, chart: str, seq: int) -> LogRow | None:
    """Return one row of a chart's log; None if it was pruned. Used by: the reasons of a chart's condition."""
    found = connection.execute(select(*_COLUMNS).where(_log.chart == chart, _log.seq == seq)).one_or_none()
    return None if found is None else _as_log_row(found)


def stream_history(connection: Connection, chart: str, after: int = 0, last: int | None = None) -> Iterator[HashedRow]:
    """Yield the rows of a chart's log after the seq `after` and up to `last`, oldest first; all rows by default.

    BATCH rows are in memory at a time, read in the caller's transaction. Used by: verify, a status of the past.
    """
    query = _filtered(chart, HistoryFilter(after=after)).order_by(_log.seq)
    if last is not None:
        query = query.where(_log.seq <= last)
    # `with`: if the caller stops early, the cursor on the server must be closed, too.
    with connection.core.execution_options(yield_per=BATCH).execute(query) as rows:
        for row in rows:
            yield _as_hashed_row(row)


def list_chart_names(connection: Connection) -> list[str]:
    """List the charts whose logs have rows. Used by: verify, to find a log without its chart."""
    # From one chart's first row to the next chart's: an index finds each, and the rows between are not read.
    names: list[str] = []
    while (name := connection.execute(_NEXT_NAME, {"after": names[-1] if names else ""}).scalar_one()) is not None:
        names.append(name)
    return names


_NEXT_NAME = select(func.min(_log.chart)).where(_log.chart > bindparam("after"))


def count_rows(connection: Connection, chart: str) -> int:
    """Count the rows of a chart's log. Used by: verify, for a log without its chart."""
    rows: int = connection.execute(select(func.count()).where(_log.chart == chart)).scalar_one()
    return rows


def _filtered(chart: str, wanted: HistoryFilter) -> Select[Any]:
    query = select(*_COLUMNS_AND_HASH).where(_log.chart == chart, _log.seq > wanted.after)
    if wanted.kind is not None:
        query = query.where(_log.kind == wanted.kind)
    if wanted.machine is not None:
        query = query.where(_log.machine == wanted.machine)
    if wanted.since is not None:
        query = query.where(_log.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_log.at < wanted.until)
    if wanted.key is not None:
        query = query.where(_log.key == wanted.key)
    if wanted.words is not None:
        found = (column.icontains(wanted.words, autoescape=True) for column in (_log.reason, _log.note))
        query = query.where(or_(*found))
    return query


def _as_log_row(columns: Sequence[Any]) -> LogRow:
    # A hash that follows the columns is left out.
    return LogRow.from_values(columns[: len(COLUMNS)])


def _as_hashed_row(row: Row[Any]) -> HashedRow:
    return HashedRow(_as_log_row(row), row[-1])


# Sampling: when the log reached a row

# Samples per chart on the page of all charts.
SAMPLES = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """The instant `at` which a chart's log reached row `seq`."""

    seq: int
    at: datetime


def _sample_numbers() -> CTE:
    numbers = select(literal(0).label("number")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.number + 1).where(numbers.c.number < SAMPLES))


def _sampled() -> Select[Any]:
    numbers = _sample_numbers()
    cube = numbers.c.number * numbers.c.number * numbers.c.number
    # The distance from the log's end grows with the cube of the number, so samples are dense in the last day and
    # sparse before it. In whole numbers, so that the join finds each row by the index on (chart, seq).
    seq = charts.c.seq - (charts.c.seq - 1) * cube // SAMPLES**3
    is_sample = and_(_log.chart == charts.c.name, _log.seq == seq)
    return (
        select(charts.c.name, _log.seq, _log.at)
        .select_from(charts.join(numbers, charts.c.archived_at.is_(None)).join(transition_log, is_sample))
        .order_by(charts.c.name, _log.seq)
        .distinct()
    )


_SAMPLED = _sampled()


def list_samples(connection: Connection) -> dict[str, list[Sample]]:
    """List up to SAMPLES + 1 samples of the log of every chart that is not archived, by the chart's name, oldest first.

    Used by: the page of all charts.
    """
    found: dict[str, list[Sample]] = defaultdict(list)
    for name, seq, at in connection.execute(_SAMPLED):
        found[name].append(Sample(seq, at))
    return found


def list_log_samples(connection: Connection, chart: str, seqs: Sequence[int]) -> list[Sample]:
    """Return when a chart's log reached each of `seqs`. Used by: a status of the past."""
    query = select(_log.seq, _log.at).where(_log.chart == chart, _log.seq.in_(seqs)).order_by(_log.seq)
    return [Sample(*row) for row in connection.execute(query)]


def list_values(
    connection: Connection, chart: str, seqs: Sequence[int], visit: tuple[int, int]
) -> list[tuple[datetime, str, int]]:
    """Return time, attribute and new value of those of the rows `seqs` that are reports in a visit (run and number).

    Used by: the plot of reports over time.
    """
    query = (
        select(_log.at, _log.key, _log.value_after)
        .where(_log.chart == chart, _log.seq.in_(seqs), _log.run == visit[0], _log.visit == visit[1])
        .where(_log.key.is_not(None), _log.value_after.is_not(None), _log.kind != str(Kind.CLAIM))
        .order_by(_log.seq)
    )
    return [(at, key, value) for at, key, value in connection.execute(query)]


def find_first_seq(connection: Connection, row: ChartRow) -> int:
    """Return the `seq` of the first log row of the chart's current run that is still in the log.

    Used by: the comparison of runs, a status of the past.
    """
    # `run` never falls as `seq` rises, so the row is found by halving. A pruned log does not begin with 1.
    low: int = connection.execute(select(func.min(_log.seq)).where(_log.chart == row.name)).scalar_one()
    high = row.seq
    while low < high:
        middle = (low + high) // 2
        query = select(_log.run).where(_log.chart == row.name, _log.seq == middle)
        run = connection.execute(query).scalar_one()
        low, high = (low, middle) if run >= row.run else (middle + 1, high)
    return low


def count_anonymous(connection: Connection, chart: str, after: int) -> dict[tuple[int, int], dict[str, int]]:
    """Count the reports without a machine's id, by run and visit, in the rows after the seq `after`.

    Used by: the comparison of runs.
    """
    query = (
        select(_log.run, _log.visit, _log.key, func.count())
        .where(_log.chart == chart, _log.seq > after, _log.machine.is_(None), _log.value_after.is_not(None))
        .where(_log.kind.in_([str(Kind.UPDATE), str(Kind.TRANSITION)]), _log.key.is_not(None))
        .group_by(_log.run, _log.visit, _log.key)
    )
    found: dict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    for run, visit, key, count in connection.execute(query):
        found[run, visit][key] = count
    return found


def list_reported(connection: Connection, row: ChartRow, visit: int) -> list[LogRow]:
    """List the rows of a visit of the chart's run, up to `row.seq`, that are about a machine's report, oldest first.

    Used by: a status of the past.
    """
    kinds = [str(kind) for kind in (Kind.UPDATE, Kind.TRANSITION, Kind.LATE, Kind.EXPIRE, Kind.WITHDRAW)]
    query = (
        select(*_COLUMNS)
        .where(_log.chart == row.name, _log.seq >= find_first_seq(connection, row), _log.seq <= row.seq)
        .where(_log.run == row.run, _log.visit == visit, _log.kind.in_(kinds), _log.machine.is_not(None))
    )
    return [_as_log_row(found) for found in connection.execute(query.order_by(_log.seq))]


def find_seq_at(connection: Connection, chart: str, at: datetime) -> tuple[int, int | None]:
    """Return the `seq` of the first row of a chart's log, and of the last row that is not younger than `at`.

    The latter is None if every row is younger. Used by: a status of the past, the plot of reports over time.
    """
    # Each end by a query of its own: SQLite would read every row of the log for both at once.
    ends = (select(end(_log.seq)).where(_log.chart == chart).scalar_subquery() for end in (func.min, func.max))
    first, last = connection.execute(select(*ends)).one()
    # `at` does not fall as `seq` rises, so the row is found by halving.
    low, high = first - 1, last
    while low < high:
        middle = (low + high + 1) // 2
        found = connection.execute(select(_log.at).where(_log.chart == chart, _log.seq == middle)).scalar_one()
        low, high = (middle, high) if found <= at else (low, middle - 1)
    return first, low if low >= first else None


# Pruning

# These triggers refuse UPDATE and DELETE. The trigger that checks INSERT stays in force.
TRIGGERS = ("transition_log_refuses_delete", "transition_log_refuses_update")
# How long a prune waits for the table's lock: every PUT on every chart queues behind it meanwhile.
LOCK_SECONDS = 1


def find_old_rows(connection: Connection, chart: str, cutoff: datetime) -> tuple[int, int]:
    """Return the `seq` of a chart's first row, and of the last row that a prune up to `cutoff` may replace.

    The latter is the row before the first row that is not older than `cutoff`. If both are the same, nothing can be
    pruned: one row, which may be the marker of the last prune, always stays.
    """
    first, last = connection.execute(select(func.min(_log.seq), func.max(_log.seq)).where(_log.chart == chart)).one()
    if first is None:
        return 0, 0
    kept = select(func.min(_log.seq)).where(_log.chart == chart, _log.at >= cutoff)
    first_kept = connection.execute(kept).scalar_one()
    return first, last if first_kept is None else max(first_kept - 1, first)


def replace_rows(connection: Connection, marker: LogRow, marker_hash: str) -> None:
    """Delete a chart's rows before `marker`, and overwrite the row with the marker's `seq`.

    The caller holds the chart's lock.
    """
    values = {name: getattr(marker, name) for name in COLUMNS}
    with _triggers_lifted(connection):
        connection.execute(delete(transition_log).where(_log.chart == marker.chart, _log.seq < marker.seq))
        chart_id = select(charts.c.id).where(charts.c.name == marker.chart).scalar_subquery()
        connection.execute(delete(replayed_keys).where(_replayed.chart_id == chart_id, _replayed.seq <= marker.seq))
        here = (_log.chart == marker.chart, _log.seq == marker.seq)
        connection.execute(update(transition_log).where(*here).values(**values, hash=marker_hash))


@contextmanager
def _triggers_lifted(connection: Connection) -> Iterator[None]:
    """Lift the triggers inside the block. No other session can write to the log until they are back.

    If the block raises, the transaction's rollback brings the triggers back: DDL is transactional on both databases.
    """
    if connection.is_sqlite:
        query = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
        sources = [connection.execute(query, {"name": name}).scalar_one() for name in TRIGGERS]
        for name in TRIGGERS:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        yield
        for source in sources:
            connection.exec_driver_sql(source)
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    for name in TRIGGERS:
        connection.exec_driver_sql(f"ALTER TABLE transition_log DISABLE TRIGGER {name}")
    yield
    for name in TRIGGERS:
        connection.exec_driver_sql(f"ALTER TABLE transition_log ENABLE TRIGGER {name}")
