"""A sample fleet in the middle of its work, for pictures and tests.

It is built through the service, with a clock that is set by hand.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from flask import Flask

from app.config import Config
from app.core.log import Author
from app.service import operate
from app.service.operate import ImportRequest, import_chart
from app.service.put import Put, tick
from app.wiring import create_app, service_of
from tests.support.requests import claim, update

ROLLOUT = """\
chart: {name}
description: {description}
current_state: canary
expect: {expect}
require_machine: true
states:
  - name: canary
    description: the first five machines that ask
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, value: 1}}}}
      - {{name: soak, when: {{key: count, value: 5}}}}
      - {{name: overdue, when: {{key: elapsed, value: 2h}}}}
  - name: soak
    description: give a slow fault time to show
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, value: 1}}}}
      - {{name: fleet, when: {{key: elapsed, value: {soak}}}}}
  - name: fleet
    description: everyone
    func: increment
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: rolled_back, when: {{key: failed, op: ">", value: "{budget}"}}}}
      - {{name: done, when: {{key: count, value: "99%"}}}}
      - {{name: overdue, when: {{key: elapsed, value: {deadline}}}}}
  - name: done
    description: the change is everywhere
  - name: rolled_back
    description: machines that ask here undo the change
  - name: overdue
    description: the deadline passed first; a person decides
"""
REBOOT = """\
chart: rack-b-reboot
description: reboot rack B, a few machines at a time
current_state: reboot
expect: [{roster}]
require_machine: true
states:
  - name: reboot
    func: increment
    slots: [1, 3]
    lease: 45m
    on_expire: fail
    current: [{{key: count, value: 0}}, {{key: failed, value: 0}}]
    target:
      - {{name: halted, when: {{key: failed, value: 3}}}}
      - {{name: done, when: {{key: count, value: "100%"}}}}
      - {{name: overdue, when: {{key: elapsed, value: 1d}}}}
  - name: done
  - name: halted
    description: three machines did not come back
  - name: overdue
"""
WINDOW = """\
chart: billing-maintenance
description: the billing database's window, this night
current_state: announced
states:
  - name: announced
    func: time
    target: {{name: draining, when: {{key: clock, value: "{drain}"}}}}
  - name: draining
    func: time
    target: {{name: open, when: {{key: elapsed, value: 30m}}}}
  - name: open
    func: time
    target: {{name: closed, when: {{key: clock, value: "{close}"}}}}
  - name: closed
"""
ANNA, JONAS, CI = Author("anna", "10.0.4.17"), Author("jonas", "10.0.4.22"), Author("ci-deploy", "10.0.9.3")
HOUR = timedelta(hours=1)


class Fleet:
    """The service on a migrated database, and its clock."""

    def __init__(self, database_url: str) -> None:
        self.app: Flask = create_app(Config(database_url=database_url))
        self.service = service_of(self.app)
        self.end = datetime.now(UTC)
        self.now = self.end
        self.chance = random.Random(7)
        self.service.database.clock = lambda: self.now

    def close(self) -> None:
        """Close the connections to the database."""
        self.service.database.engine.dispose()

    def at(self, before_end: timedelta) -> None:
        """Set the clock to `before_end` before the end."""
        self.now = self.end - before_end

    def load(self, text: str, author: Author = CI) -> None:
        """Import a chart file."""
        import_chart(self.service, ImportRequest(text), author)

    def rollout(
        self,
        name: str,
        description: str,
        expect: int,
        soak: str = "1h",
        budget: str = "2%",
        deadline: str = "12h",
    ) -> None:
        """Import a rollout to `expect` machines; the times and the budget of failures are as in a chart file."""
        text = ROLLOUT.format(
            name=name, description=description, expect=expect, soak=soak, budget=budget, deadline=deadline
        )
        self.load(text)

    def report(
        self,
        chart: str,
        state: str,
        machines: Sequence[str],
        start: timedelta,
        end: timedelta,
        failed: Sequence[str] = (),
    ) -> None:
        """Have `machines` report a success and `failed` a failure, at uneven times between two moments."""
        moments = sorted(self.chance.betavariate(1.4, 1.8) for _ in [*machines, *failed])
        order = [(machine, None) for machine in machines]
        for machine in failed:
            order.insert(self.chance.randrange(len(order)), (machine, "failed"))
        for (machine, key), moment in zip(order, moments, strict=True):
            self.at(start + (end - start) * moment)
            address = f"10.1.{len(machine)}.{self.chance.randrange(250)}"
            update(self.service, chart, Put(state, machine, key), Author("agent", address))

    def advance(self, chart: str, to: timedelta) -> None:
        """Take the clock transitions of a chart that are due at `to`."""
        self.at(to)
        tick(self.service, chart)


def names(prefix: str, count: int, start: int = 1) -> list[str]:
    """The ids of `count` machines, numbered from `start`."""
    return [f"{prefix}-{number:03}" for number in range(start, start + count)]


def build_fleet(database_url: str) -> None:
    """Fill a migrated database with the sample fleet."""
    fleet = Fleet(database_url)
    try:
        for part in (_kernel, _openssl, _postgres, _ntp, _reboot, _window, _agent, _finished, _small):
            part(fleet)
    finally:
        fleet.close()


def _started(
    fleet: Fleet, name: str, description: str, *, expect: int, prefix: str, begin: float, **more: str
) -> list[str]:
    """Start a rollout `begin` hours before the end, up to the end of its soak; returns the ids of its machines."""
    fleet.at(begin * HOUR)
    fleet.rollout(name, description, expect, **more)
    machines = names(prefix, expect)
    fleet.report(name, "canary", machines[:5], (begin - 0.05) * HOUR, (begin - 0.6) * HOUR)
    fleet.advance(name, (begin - 1.7) * HOUR)
    return machines


def _kernel(fleet: Fleet) -> None:
    machines = _started(fleet, "kernel-rollout", "kernel 6.12 on the web tier", expect=400, prefix="web", begin=6.5)
    fleet.report("kernel-rollout", "fleet", machines[:150], 4.7 * HOUR, 1.4 * HOUR, failed=machines[306:308])
    fleet.at(1.3 * HOUR)
    operate.pause(fleet.service, "kernel-rollout", "load on the balancers during the noon peak", ANNA)
    fleet.at(0.95 * HOUR)
    operate.resume(fleet.service, "kernel-rollout", "the peak is over", ANNA)
    fleet.report("kernel-rollout", "fleet", machines[150:212], 0.9 * HOUR, 0.002 * HOUR, failed=machines[399:])


def _openssl(fleet: Fleet) -> None:
    machines = _started(
        fleet,
        "openssl-3.0.15",
        "the fix of Tuesday's advisory, everywhere",
        expect=120,
        prefix="edge",
        begin=11,
        deadline="12h",
    )
    fleet.report("openssl-3.0.15", "fleet", machines[:91], 9 * HOUR, 5.5 * HOUR, failed=machines[97:98])


def _postgres(fleet: Fleet) -> None:
    machines = _started(
        fleet, "postgres-minor", "PostgreSQL 15.9 on the replicas", expect=36, prefix="db", begin=4, budget="10%"
    )
    fleet.report("postgres-minor", "fleet", machines[:14], 2.2 * HOUR, 0.6 * HOUR)
    fleet.at(0.5 * HOUR)
    operate.pause(fleet.service, "postgres-minor", "replication lag above 30 s on db-007", JONAS)


def _ntp(fleet: Fleet) -> None:
    machines = _started(fleet, "chrony-migration", "from ntpd to chrony", expect=200, prefix="app", begin=22)
    fleet.report("chrony-migration", "fleet", machines[:61], 20 * HOUR, 18 * HOUR)
    fleet.report("chrony-migration", "fleet", machines[61:66], 18 * HOUR, 17 * HOUR, failed=machines[100:105])


def _reboot(fleet: Fleet) -> None:
    roster = names("b", 24)
    fleet.at(3 * HOUR)
    fleet.load(REBOOT.format(roster=", ".join(roster)))
    for number, machine in enumerate(roster[:9]):
        fleet.at((2.9 - number * 0.28) * HOUR)
        claim(fleet.service, "rack-b-reboot", "reboot", machine, Author("agent", "10.2.0.4"))
        fleet.at((2.75 - number * 0.28) * HOUR)
        update(fleet.service, "rack-b-reboot", Put("reboot", machine), Author("agent", "10.2.0.4"))
    for number, machine in enumerate(roster[9:12]):
        fleet.at((0.3 - number * 0.1) * HOUR)
        claim(fleet.service, "rack-b-reboot", "reboot", machine, Author("agent", "10.2.0.4"))


def _window(fleet: Fleet) -> None:
    fleet.at(5 * HOUR)
    drain, close = fleet.end + 7 * HOUR, fleet.end + 12 * HOUR
    fleet.load(WINDOW.format(drain=f"{drain:%Y-%m-%dT%H:00:00Z}", close=f"{close:%Y-%m-%dT%H:00:00Z}"))


def _agent(fleet: Fleet) -> None:
    fleet.at(0.7 * HOUR)
    fleet.rollout("log-agent-2", "the new log agent, canaries first", 900)
    fleet.report("log-agent-2", "canary", names("web", 3), 0.6 * HOUR, 0.1 * HOUR)


def _finished(fleet: Fleet) -> None:
    for name, description, expect, begin in (
        ("tls-renewal", "new certificates on the edge", 40, 19.0),
        ("dns-resolver", "the second resolver", 60, 26.0),
        ("sudo-policy", "sudoers from the repository", 30, 9.0),
    ):
        machines = _started(fleet, name, description, expect=expect, prefix="edge", begin=begin)
        fleet.report(name, "fleet", machines, (begin - 1.8) * HOUR, (begin - 6) * HOUR)


def _small(fleet: Fleet) -> None:
    fleet.at(8 * HOUR)
    fleet.load(
        "chart: nightly-batch\ndescription: load, then report\ncurrent_state: load\nstates:\n"
        "  - {name: load, func: increment, current: {key: count, value: 0},"
        " target: [{name: publish, when: {key: count, value: 3}}]}\n"
        "  - {name: publish, func: increment, current: {key: count, value: 0},"
        " target: [{name: load, when: {key: count, value: 1}}, {name: stopped, when: {key: elapsed, value: 2d}}]}\n"
        "  - name: stopped\n"
    )
    for night in range(3):
        fleet.report("nightly-batch", "load", names(f"etl{night}", 3), (7.5 - night * 2) * HOUR, (7 - night * 2) * HOUR)
        fleet.report(
            "nightly-batch", "publish", names(f"bi{night}", 1), (6.5 - night * 2) * HOUR, (6 - night * 2) * HOUR
        )
    fleet.report("nightly-batch", "load", names("etl9", 2), 0.8 * HOUR, 0.2 * HOUR)
