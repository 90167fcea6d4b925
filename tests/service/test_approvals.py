"""People approve: each counts once, under the name of the token, and an upgrade begins anew."""

from __future__ import annotations

import hashlib

import pytest

from app.core.errors import BadRequestError, ForbiddenError
from app.core.log import Author
from app.core.position import Reason
from app.service import reading
from app.service.ask import Question as Asked
from app.service.ask import answer_all
from app.service.context import Service
from app.service.put import Answer, Put
from app.service.rosters import RosterRequest, import_roster
from app.service.upkeep import verify
from tests.service.support import NOBODY, import_text, rows
from tests.support.requests import update

CHANGE = """\
chart: web
current_state: review
states:
- name: review
  func: increment
  who: approvers
  not: importer
  current: [{key: approved, value: 0}, {key: rejected, value: 0}]
  target:
  - {name: refused, when: {key: rejected, value: 1}}
  - {name: work, when: {key: approved, value: 2}}
  - {name: refused, when: {key: elapsed, value: 2d}}
- name: work
  func: increment
  current: {key: count, value: 0}
  target: [{name: done, when: {key: count, value: 1}}, {name: done, when: {key: elapsed, value: 2d}}]
- name: refused
- name: done
"""


def approve(service: Service, name: str, key: str = "approved", **options: bool) -> Answer:
    return update(service, "web", Put("review", None, key), Author(actor=name, **options))


def test_two_approvers_move_the_chart_and_each_counts_once(service: Service) -> None:
    import_text(service, CHANGE)
    assert approve(service, "bob").value == 1
    health = reading.get_status(service, "web").health
    assert (str(health.condition), health.because) == (
        "waiting",
        "review waits for approval: approved 1, rejected 0; work follows at approved ≥ 2",
    )
    assert approve(service, "bob").reason is Reason.REPLAY
    assert approve(service, "cy").reason is Reason.TRANSITIONED
    assert [row.machine for row in rows(service)[1:]] == ["bob", "cy"]
    assert reading.get_status(service, "web").current_state == "work"


def test_veto_ends_it(service: Service) -> None:
    import_text(service, CHANGE)
    approve(service, "bob")
    assert approve(service, "bob", "rejected").current_state == "refused"


def test_importer_of_the_version_may_not_approve_it(service: Service) -> None:
    import_text(service, CHANGE)
    answer = approve(service, "ann")
    assert (answer.is_yes, answer.reason) == (False, Reason.OWN_CHANGE)


def test_only_approvers_report_on_their_state_and_only_there(service: Service) -> None:
    import_text(service, CHANGE)
    with pytest.raises(ForbiddenError, match="token 'web-01' is not an approver's: only approvers report on 'review'"):
        approve(service, "web-01", may_approve=False)
    with pytest.raises(ForbiddenError, match="token 'bob' cannot report as 'cy'"):
        update(service, "web", Put("review", "cy"), Author(actor="bob"))
    with pytest.raises(ForbiddenError, match="reports only on states of approvers"):
        update(service, "web", Put("work", "m1"), Author(actor="bob", may_report=False))
    assert len(rows(service)) == 1


def test_person_is_named_by_machine_where_there_are_no_tokens(service: Service) -> None:
    import_text(service, CHANGE)
    with pytest.raises(BadRequestError, match="machine is missing: the name of the person"):
        update(service, "web", Put("review"), NOBODY)
    assert update(service, "web", Put("review", "bob"), NOBODY).is_yes


def test_upgrade_withdraws_what_was_approved(service: Service) -> None:
    import_text(service, CHANGE)
    approve(service, "bob")
    import_text(service, CHANGE.replace("2d", "3d"))
    row = rows(service)[-1]
    assert (row.kind, row.machine, row.key, row.value_before, row.value_after) == ("withdraw", "bob", "approved", 1, 0)
    assert row.note == hashlib.sha256(CHANGE.encode()).hexdigest()
    assert row.reason == "version 1 was approved"
    assert approve(service, "bob").value == 1
    assert approve(service, "cy").reason is Reason.TRANSITIONED
    assert verify(service, "web").differences == ()


MACHINES = {"a list": "[m1, m2]", "a roster": "{roster: fleet}"}


@pytest.mark.parametrize("expect", MACHINES.values(), ids=MACHINES)
def test_approvals_count_in_a_chart_that_names_its_machines(service: Service, expect: str) -> None:
    import_roster(service, RosterRequest("fleet", {"m1": "", "m2": ""}), NOBODY)
    import_text(service, CHANGE.replace("states:", f"expect: {expect}\nstates:"))
    assert approve(service, "bob").reason is Reason.UPDATED
    import_roster(service, RosterRequest("fleet", {"m1": "", "m2": "", "m3": ""}), NOBODY)
    assert approve(service, "cy").current_state == "work"
    assert update(service, "web", Put("work", "cy"), NOBODY).reason is Reason.NOT_ON_ROSTER
    assert verify(service, "web").differences == ()


def test_people_are_those_of_the_state_if_it_names_them(service: Service) -> None:
    import_text(service, CHANGE.replace("  who:", "  expect: [bob, cy]\n  who:"))
    assert approve(service, "dan").reason is Reason.NOT_ON_ROSTER
    assert approve(service, "bob").reason is Reason.UPDATED


def ask_for_turn(service: Service, machine: str, approver: str | None = None) -> Reason:
    (found,) = answer_all(service, [Asked(chart="web", state=None, machine=machine, approver=approver)])
    return found.answer.reason  # type: ignore[union-attr]  # there is such a chart


def test_only_approvers_have_a_turn_while_people_approve(service: Service) -> None:
    import_text(service, CHANGE)
    assert ask_for_turn(service, "m1") is Reason.APPROVERS
    assert ask_for_turn(service, "m1", "bob") is Reason.APPROVERS
    assert ask_for_turn(service, "ann", "ann") is Reason.OWN_CHANGE
    assert ask_for_turn(service, "bob", "bob") is Reason.CURRENT
    approve(service, "bob")
    assert ask_for_turn(service, "bob", "bob") is Reason.DONE
    approve(service, "cy")
    assert ask_for_turn(service, "m1") is Reason.CURRENT


def test_status_says_that_it_waits_for_people(service: Service) -> None:
    import_text(service, CHANGE)
    waits_for = reading.get_status(service, "web").waits_for
    assert waits_for.startswith("people to approve, but not the person who imported this version; refused when")
