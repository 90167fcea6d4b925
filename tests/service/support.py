"""The service on a real database, and the charts its tests import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app import store
from app.core.log import Author, HistoryFilter, LogRow
from app.db import Database, asking, transaction
from app.db.engine import open_engine
from app.service import reading
from app.service.context import Service
from app.service.operate import Imported, ImportRequest, import_chart
from app.service.put import Put
from app.waiting.hub import Hub
from tests.core.support import NOON
from tests.support.apps import end_service
from tests.support.requests import update

CHARTS = Path(__file__).resolve().parents[2] / "charts"
SEED = (CHARTS / "states.yaml").read_text()
NOBODY = Author()
ANN = Author(actor="ann", remote_addr="192.0.2.7")

CANARY = """\
chart: web
current_state: canary
states:
- name: canary
  func: increment
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target:
  - {name: rollback, when: {key: failed, value: 1}}
  - {name: soak, when: {key: count, value: 2}}
- name: soak
  func: increment
  current: {key: count, value: 0}
  target: [{name: done, when: {key: count, value: 5}}, {name: done, when: {key: elapsed, value: 60s}}]
- name: rollback
- name: done
"""

REBOOT = """\
chart: web
current_state: reboot
states:
- name: reboot
  func: increment
  slots: 2
  lease: 100s
  on_expire: fail
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: [{name: halted, when: {key: failed, value: 2}}, {name: done, when: {key: count, value: 9}}]
- name: halted
- name: done
"""

# The same with a rollout instead of a soak, and without a deadline.
ROLLOUT = """\
chart: web
current_state: canary
states:
  - name: canary
    func: increment
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target:
      - {name: rollback, when: {key: failed, value: 1}}
      - {name: rollout, when: {key: count, value: 2}}
  - name: rollout
    func: increment
    current: {key: count, value: 0}
    target: {name: done, when: {key: count, value: 3}}
  - name: rollback
  - name: done
"""

# A reboot with a roster and without a budget.
ROSTERED = """\
chart: web
current_state: reboot
expect: [m1, m2, m3]
states:
  - name: reboot
    func: increment
    slots: 2
    lease: 1h
    current: {key: count, value: 0}
    target: {name: done, when: {key: count, value: 3}}
  - name: done
"""

DAY = timedelta(days=1)


@dataclass
class Clock:
    """The database's time, in a test's hand."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@contextmanager
def opened_service(url: str, *, pool_size: int = 10, log_key: bytes | None = None) -> Iterator[Service]:
    """The service on the database at `url`; its connections are closed at the end."""
    engine = open_engine(url, pool_size=pool_size)
    database = Database(engine, log_key=log_key)
    service = Service(database=database, hub=Hub(database))
    yield service
    end_service(service)


def import_text(service: Service, chart_text: str, name: str | None = None, **options: Any) -> Imported:
    """Import a chart file as Ann."""
    request = ImportRequest(chart_text, name=name, default_name="web", **options)
    return import_chart(service, request, ANN)


def put(
    service: Service,
    state: str,
    machine: str | None = None,
    key: str | None = None,
    *,
    chart: str = "web",
    idempotency_key: str | None = None,
) -> Any:
    """Send the PUT of a machine."""
    return update(service, chart, Put(state, machine, key), Author(idempotency_key=idempotency_key))


def rows(service: Service, chart: str = "web", **wanted: Any) -> list[LogRow]:
    """The chart's log."""
    return [hashed.row for hashed in reading.iterate_history(service, chart, HistoryFilter(**wanted))]


def kinds(service: Service, chart: str = "web") -> list[str]:
    return [row.kind for row in rows(service, chart)]


def query(service: Service, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a SELECT, behind the service's back."""
    with asking(service.database) as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def alter(service: Service, *statements: str) -> None:
    """Change rows behind the service's back."""
    with transaction(service.database) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def drop_triggers(service: Service) -> None:
    """Let rows of the log be changed behind the service's back."""
    with transaction(service.database) as connection:
        if service.database.is_sqlite:
            found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            statements = [f"DROP TRIGGER {name}" for name in found]
        else:
            statements = ["ALTER TABLE transition_log DISABLE TRIGGER USER"]
        for statement in statements:
            connection.exec_driver_sql(statement)


def get_row(service: Service, chart: str = "web") -> store.charts.ChartRow:
    with asking(service.database) as connection:
        return store.charts.get_chart_even_archived(connection, chart)
