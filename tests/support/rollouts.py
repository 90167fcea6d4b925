"""What the tests of administration share: charts, and commands run in this process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import text

from app.core.log import Author
from app.db import asking
from app.service.context import Service
from app.service.operate import Imported, ImportRequest, import_chart
from app.service.put import Put
from tests.support.requests import update

ANN = Author(actor="ann")

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

REBOOT = """\
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


def import_text(service: Service, chart: str, name: str = "web", **options: Any) -> Imported:
    """Import a chart file as Ann."""
    return import_chart(service, ImportRequest(chart, name=name, **options), ANN)


def put(service: Service, state: str, machine: str | None = None, key: str | None = None, **sent: Any) -> Any:
    """A machine's PUT on the chart `web`."""
    identity = sent.pop("idempotency_key", None)
    return update(service, "web", Put(state, machine, key, identity), Author(idempotency_key=identity))


def query(service: Service, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a SELECT, behind the service's back."""
    with asking(service.database) as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


DAY = timedelta(days=1)
