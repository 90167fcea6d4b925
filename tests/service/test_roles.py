"""The service as the role that deploy/roles.sql lets it serve with: it writes every table, and nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from sqlalchemy import func, select

from app.core.position import Kind, Reason
from app.db import asking
from app.models import metadata
from app.service import calendars, operate, past, subscriptions, tokens
from app.service.context import Service
from app.service.put import sweep
from app.service.rosters import RosterRequest, import_roster, read_lines
from app.service.subscriptions import Deliverer, Wanted
from app.service.tokens import Role, TokenCache
from app.service.upkeep import prune
from app.service.verifying import verify
from app.service.webhooks import AllowedHosts
from tests.service.support import ANN, CANARY, DAY, REBOOT, Clock, import_text, opened_service, put, rows
from tests.service.support import ROSTERED as LISTED
from tests.support.receiver import receiver
from tests.support.requests import claim, release
from tests.support.roles import as_owner

FREEZE = """\
BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:1
DTSTART:20200101T000000Z
DURATION:PT1H
END:VEVENT
END:VCALENDAR
"""
ROSTERED = """\
chart: web
current_state: canary
expect: {roster: web}
except: [freeze]
states:
- name: canary
  func: increment
  current: [{key: count, value: 0}, {key: failed, value: 0}]
  target: {name: done, when: {key: count, value: 2}}
- name: done
"""


@pytest.fixture
def serving(serving_url: str) -> Iterator[Service]:
    """The service as the role that serves."""
    with opened_service(serving_url) as service:
        service.database.clock = Clock()
        service.webhook_hosts = AllowedHosts(["127.0.0.1"])
        yield service


def live_with_charts(service: Service) -> None:
    """Import, report, repeat, report late, upgrade, pause, resume, go, reset and archive."""
    import_text(service, CANARY)
    assert put(service, "canary", "m1", idempotency_key="k1").reason is Reason.UPDATED
    assert put(service, "canary", "m1", idempotency_key="k2").reason is Reason.REPLAY
    assert put(service, "canary", "m2").reason is Reason.TRANSITIONED
    assert put(service, "canary", "m2", key="failed").reason is Reason.RECORDED
    import_text(service, CANARY.replace("value: 5", "value: 6"))
    operate.pause(service, "web", "look", ANN)
    operate.resume(service, "web", "on", ANN)
    operate.goto(service, "web", "canary", "again", ANN)
    operate.reset(service, "web", "again", ANN)
    operate.archive(service, "web", "over", ANN)


def live_with_slots(service: Service, clock: Clock) -> None:
    """Claim, renew, give back, evict, and let leases end."""
    import_text(service, REBOOT, name="reboot")
    for machine in ("m1", "m2"):
        assert claim(service, "reboot", "reboot", machine).is_yes
    assert claim(service, "reboot", "reboot", "m1").is_yes
    assert claim(service, "reboot", "reboot", "m3").reason is Reason.FULL
    assert put(service, "reboot", "m1", chart="reboot").is_yes
    assert release(service, "reboot", "reboot", "m2").is_yes
    assert claim(service, "reboot", "reboot", "m4").is_yes
    operate.evict(service, "reboot", "m4", "gone", ANN)
    assert claim(service, "reboot", "reboot", "m5").is_yes
    clock.advance(101)
    assert sweep(service) == 1
    assert claim(service, "reboot", "reboot", "m6").is_yes


def live_with_rosters(service: Service) -> None:
    """Follow a roster and a calendar, and lose a machine that has reported."""
    for lines in ("m1 rack=a\nm2 rack=b\nm3 rack=a\n", "m2 rack=b\nm3 rack=b\n"):
        found = read_lines(lines.encode().splitlines())
        import_roster(service, RosterRequest("web", found, max_loss=Fraction(1)), ANN)
        if "m1" in found:
            calendars.import_calendar(service, "freeze", FREEZE, ANN)
            import_text(service, ROSTERED, name="rostered")
            assert put(service, "canary", "m1", chart="rostered").is_yes
    calendars.import_calendar(service, "freeze", FREEZE.replace("PT1H", "PT2H"), ANN)
    import_text(service, LISTED, name="listed")


def live_with_tokens(service: Service, clock: Clock) -> None:
    """Make, enrol, use and revoke tokens; sign in, look, and sign out."""
    for name in ("ann", "bob"):
        tokens.create_token(service, name, Role.OPERATOR, "*", ANN)
    tokens.enrol_machine(service, "m1", "*", ANN)
    token = next(row for row in tokens.list_tokens(service) if row.name == "ann")
    over, going_on = (tokens.begin_session(service, token.id) for _ in range(2))
    clock.advance(120)
    holder = tokens.find_session_holder(service, TokenCache(), going_on, is_person=True)
    assert holder is not None
    tokens.end_session(service, over)
    tokens.revoke_token(service, "bob", ANN)


def live_with_subscriptions(service: Service) -> None:
    """Tell a receiver of a row, change a subscription, and drop one."""
    with receiver() as hook:
        wanted = Wanted(url=hook.url, kinds=("pause",))
        for name in ("pager", "other"):
            subscriptions.put_subscription(service, name, wanted, ANN)
        subscriptions.put_subscription(service, "pager", replace(wanted, kinds=("pause", "resume")), ANN)
        operate.pause(service, "reboot", "look", ANN)
        Deliverer(service).deliver(subscriptions.get_subscription(service, "pager"), "reboot")
        subscriptions.send_test(service, "other")
        subscriptions.delete_subscription(service, "other")
        assert len(hook.received) == 2


def test_whole_life_passes_as_the_role_that_serves(serving: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = serving.database.clock
    assert isinstance(clock, Clock)
    live_with_charts(serving)
    live_with_rosters(serving)
    live_with_tokens(serving, clock)
    live_with_slots(serving, clock)
    live_with_subscriptions(serving)
    monkeypatch.setattr(past, "STRIDE", 2)
    assert past.leave_checkpoint(serving, "web")

    with asking(serving.database) as connection:
        empty = [
            name
            for name, table in metadata.tables.items()
            if connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
        ]
    # A test that leaves a table out says nothing of the role's rights on it.
    assert empty == []
    assert [verify(serving, name).differences for name in ("web", "reboot", "rostered")] == [(), (), ()]


def test_role_that_serves_cannot_prune_and_the_owner_can(serving: Service, serving_url: str) -> None:
    live_with_charts(serving)
    clock = serving.database.clock
    assert isinstance(clock, Clock)
    clock.advance(9 * DAY.total_seconds())
    before = len(rows(serving))

    with pytest.raises(Exception, match=r"permission denied|must be owner"):
        prune(serving, "web", DAY, ANN)
    assert len(rows(serving)) == before

    with opened_service(as_owner(serving_url)) as owner:
        owner.database.clock = clock
        assert prune(owner, "web", DAY, ANN).rows > 0
    assert rows(serving)[0].kind == Kind.PRUNE
