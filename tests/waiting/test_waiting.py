"""A request that waits: what ends it, how soon, and with which answer; on two real servers with one database."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future

import pytest

from tests.support.charts import ROSTER, THREE, TWO, deadline
from tests.support.http import Reply
from tests.support.processes import PATIENCE
from tests.support.servers import JSON, Server, chart_path


def answers(held: list[Future[Reply]]) -> set[tuple[int, str]]:
    return {one.result(60).answer for one in held}


def test_waiters_of_every_worker_are_answered_after_a_put(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=16)
    put = server.put(chart, "first")
    replies = [one.result(60) for one in held]
    assert put.answer == (200, "first")
    assert {reply.answer for reply in replies} == {(200, "second")}


def test_waiter_is_answered_after_a_put_that_another_server_served(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=8) + server.hold(chart, "second", "reached", count=8)
    since = server.clock()
    assert other.put(chart, "first").answer == (200, "first")
    replies = [one.result(60) for one in held]
    assert {reply.answer for reply in replies} == {(200, "second")}
    assert max(reply.at for reply in replies) - since < PATIENCE


def test_waiter_for_a_later_state_waits_on(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    soon, later = server.hold(chart, "second"), server.hold(chart, "third")
    other.put(chart, "first")
    assert answers(soon) == {(200, "second")}
    assert not later[0].done()
    other.put(chart, "second")
    assert answers(later) == {(200, "third")}


def test_waiter_gets_json_where_it_asks_for_it(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    path = chart_path(chart, state="second", wait="20")
    waiter = server.callers.submit(server.ask, "GET", path, None, **JSON)
    server.until_waiting(1)
    server.put(chart, "first")
    answer = waiter.result(60).json()
    assert (answer["answer"], answer["reason"], answer["current_state"]) == ("yes", "current", "second")


ENDINGS = {
    "a goto": ("goto", {"state": "third"}, "third", "third"),
}


@pytest.mark.parametrize(("verb", "fields", "state", "body"), ENDINGS.values(), ids=ENDINGS)
def test_waiter_is_answered_after(
    server: Server, other: Server, chart: str, verb: str, fields: dict[str, str], state: str, body: str
) -> None:
    server.import_chart(chart, THREE)
    server.put(chart, "first")
    held = server.hold(chart, state)
    since = server.clock()
    other.act(chart, verb, **fields)
    reply = held[0].result(60)
    assert reply.answer == (200, body)
    assert reply.at - since < PATIENCE


def test_waiter_is_answered_after_an_upgrade_that_moves_the_chart(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    server.put(chart, "first")
    held = server.hold(chart, "third")
    since = server.clock()
    upgraded = other.ask("PUT", f"/charts/{chart}?map=second:third", TWO)
    reply = held[0].result(60)
    assert (upgraded.status, reply.answer) == (200, (200, "third"))
    assert reply.at - since < PATIENCE


def test_waiter_is_answered_when_a_clock_guard_comes_due(server: Server, chart: str) -> None:
    server.import_chart(chart, deadline("2s"))
    held = server.hold(chart, "over", count=4) + server.hold(chart, "over", "reached", count=4)
    assert answers(held) == {(200, "over")}
    # From before the import, so this is more than the guard is late by.
    assert max(one.result().seconds for one in held) < 2 + PATIENCE


# A no that waiting cannot change


def test_paused_chart_is_waited_for(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held, reached = server.hold(chart, "second", count=4), server.hold(chart, "second", "reached", count=4)
    other.act(chart, "pause")
    time.sleep(1)  # until the waiters have heard of the pause
    assert not any(one.done() for one in (*held, *reached))
    other.act(chart, "resume")
    other.put(chart, "first")
    assert answers(held) == {(200, "second")}
    assert answers(reached) == {(200, "second")}


def test_waiter_gets_406_at_once_when_no_path_leads_to_its_state(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    server.put(chart, "first")
    reply = server.get(chart, "first", wait="55")
    assert reply.answer == (406, "")
    assert reply.seconds < PATIENCE


def test_end_of_a_chart_answers_everybody(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=4) + server.hold(chart, "second", "reached", count=4)
    since = server.clock()
    other.act(chart, "goto", state="end")
    replies = [one.result(60) for one in held]
    assert {reply.answer for reply in replies} == {(406, "")}
    assert max(reply.at for reply in replies) - since < PATIENCE


def test_archiving_answers_everybody_with_404(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", count=4) + server.hold(chart, "second", "reached", count=4)
    since = server.clock()
    other.act(chart, "archive")
    replies = [one.result(60) for one in held]
    assert {reply.status for reply in replies} == {404}
    assert {reply.headers["Content-Type"] for reply in replies} == {"application/problem+json"}
    assert {json.loads(reply.body)["detail"] for reply in replies} == {f"no chart named '{chart}'"}
    assert max(reply.at for reply in replies) - since < PATIENCE


@pytest.mark.parametrize("rest", ["state", "reached"])
def test_unknown_state_is_answered_at_once(server: Server, chart: str, rest: str) -> None:
    server.import_chart(chart, THREE)
    reply = server.get(chart, "nowhere", rest, wait="55")
    assert reply.answer == (406, "")
    assert reply.seconds < PATIENCE


@pytest.mark.parametrize("rest", ["state", "reached"])
def test_chart_that_has_ended_is_answered_at_once(server: Server, chart: str, rest: str) -> None:
    server.import_chart(chart, THREE)
    server.act(chart, "goto", state="end")
    reply = server.get(chart, "second", rest, wait="55")
    assert reply.answer == (406, "")
    assert reply.seconds < PATIENCE


def test_stranger_to_the_roster_is_answered_at_once(server: Server, chart: str) -> None:
    server.import_chart(chart, ROSTER)
    reply = server.get(chart, "second", wait="55", machine="stranger")
    assert reply.answer == (406, "")
    assert reply.seconds < PATIENCE


def test_chart_that_is_not_there_is_answered_at_once(server: Server) -> None:
    reply = server.get("nothing", "second", wait="55")
    assert reply.status == 404
    assert reply.seconds < PATIENCE


# How long


def test_yes_is_answered_at_once(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    for rest in ("state", "reached"):
        reply = server.get(chart, "first", rest, wait="55")
        assert reply.answer == (200, "first")
        assert reply.seconds < PATIENCE


def test_wait_of_nothing_is_answered_at_once(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    reply = server.get(chart, "second", wait="0")
    assert reply.answer == (406, "")
    assert reply.seconds < PATIENCE


def test_wait_ends_when_its_time_is_up(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    for rest in ("state", "reached"):
        reply = server.get(chart, "second", rest, wait="1")
        assert reply.answer == (406, "")
        assert 1 <= reply.seconds < 1 + PATIENCE


@pytest.mark.parametrize("wait", ["56", "-1", "1.5", "x", "", "٣", "1e1", "+5", " 5"])
@pytest.mark.parametrize("rest", ["state", "reached"])
def test_wait_that_is_no_number_of_seconds_is_refused(server: Server, chart: str, rest: str, wait: str) -> None:
    server.import_chart(chart, THREE)
    reply = server.get(chart, "second", rest, wait=wait)
    assert reply.status == 400
    assert "wait" in reply.json()["detail"]


def test_longest_wait_is_accepted(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    held = server.hold(chart, "second", wait="55")
    server.put(chart, "first")
    assert answers(held) == {(200, "second")}


def test_head_waits_as_get_does(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    waiter = server.callers.submit(server.ask, "HEAD", chart_path(chart, state="second", wait="20"))
    server.until_waiting(1)
    server.put(chart, "first")
    assert waiter.result(60).answer == (200, "")


def test_put_does_not_wait(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    reply = server.put(chart, "second", wait="55")
    assert reply.status == 406
    assert reply.seconds < PATIENCE
