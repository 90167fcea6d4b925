"""Many who wait for the same: all of them are told, once, and the right thing."""

from __future__ import annotations

from tests.support.charts import THREE
from tests.support.crowd import Crowd
from tests.support.processes import PATIENCE, until
from tests.support.servers import Server, chart_path

WAITERS = 200


def test_put_releases_all_waiters(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    with Crowd(server.port) as crowd:
        ways = ("state", "reached")
        crowd.ask([chart_path(chart, ways[number % 2], state="second", wait="55") for number in range(WAITERS)])
        server.until_waiting(WAITERS)
        since = server.clock()
        assert other.put(chart, "first").answer == (200, "first")
        answered = crowd.collect(PATIENCE)
        assert len(answered) == WAITERS
        assert {(one.status, one.body) for one in answered} == {(200, "second")}
        assert max(one.at for one in answered if one.at is not None) - since < PATIENCE
    until(lambda: server.waiters() == 0, "every place is free again")


def test_all_are_answered_when_their_time_is_up_together(server: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    with Crowd(server.port) as crowd:
        crowd.ask([chart_path(chart, state="second", wait="3")] * WAITERS)
        assert {(one.status, one.body) for one in crowd.collect(PATIENCE)} == {(406, "")}


def test_chain_of_moves_answers_each_crowd_in_its_turn(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    each = 40
    states = ("second", "third", "end")
    with Crowd(server.port) as crowd:
        crowd.ask([chart_path(chart, state=state, wait="55") for state in states for _ in range(each)])
        server.until_waiting(each * len(states))
        for number, state in enumerate(("first", "second", "third"), 1):
            assert other.put(chart, state).answer == (200, state)
            answered = crowd.collect(PATIENCE, until=each * number)
            assert len(answered) == each * number
        assert sorted({(one.status, one.body) for one in crowd.answered()}) == [
            (200, state) for state in sorted(states)
        ]


def test_reached_is_answered_though_the_chart_moved_on_at_once(server: Server, other: Server, chart: str) -> None:
    server.import_chart(chart, THREE)
    with Crowd(server.port) as crowd:
        crowd.ask([chart_path(chart, "reached", state="second", wait="55")] * WAITERS)
        server.until_waiting(WAITERS)
        for state in ("first", "second", "third"):
            assert other.put(chart, state).answer == (200, state)
        assert {(one.status, one.body) for one in crowd.collect(PATIENCE)} == {(200, "second")}
