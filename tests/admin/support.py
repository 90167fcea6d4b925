"""Charts, and commands that run in this process, for the tests of administration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import text

from app.cli.root import main
from app.core.log import Author
from app.db import asking
from app.service.context import Service
from app.service.operate import Imported, ImportRequest, import_chart
from app.service.put import Put, update

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
    """Send a machine's PUT to the chart `web`."""
    identity = sent.pop("idempotency_key", None)
    return update(service, "web", Put(state, machine, key, identity), Author(idempotency_key=identity))


def query(service: Service, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a SELECT on the service's database."""
    with asking(service.database) as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


@dataclass
class Commands:
    """The command line on a database."""

    database_url: str

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None, **settings: str) -> Result:
        """Run a command, and fail if its exit code is not `code`."""
        environment: dict[str, str | None] = {
            "STATE_SERVICE_DATABASE_URL": self.database_url,
            **{f"STATE_SERVICE_{name.upper()}": value for name, value in settings.items()},
        }
        result = CliRunner().invoke(main, list(arguments), env=environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result


DAY = timedelta(days=1)
