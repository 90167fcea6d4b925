"""The page that simulates a chart: its form, its figures, and the limits of its work."""

from __future__ import annotations

import threading

import pytest
from flask import Flask

from app.core.log import Author
from app.service.put import Put
from app.service.rosters import RosterRequest, import_roster
from app.web.ui import what_if
from app.wiring import service_of
from tests.support.apps import import_text
from tests.support.requests import update
from tests.web.ui.browser import Browser, make_token, words_of

PAGE = "/ui/charts/rollout/what-if"
BY_ROSTER = """
chart: by-roster
current_state: go
expect: {roster: web}
states:
  - name: go
    func: increment
    slots: {total: 2, per: {rack: 1}}
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: bad, when: {key: failed, value: 2}}, {name: done, when: {key: count, value: "100%"}}]
  - name: bad
  - name: done
"""


def test_form_has_the_usual_assumptions_and_simulates_nothing(app: Flask) -> None:
    page = Browser(app).get(PAGE).text
    assert 'value="10m..40m"' in page
    assert 'name="machines" type="number" value="400"' in page
    assert "ended" not in words_of(page).split("Assumptions")[0].split("How")[1:]
    assert "<svg" not in page.split('id="main"')[1]
    assert f'href="{PAGE}"' in Browser(app).get("/ui/charts/rollout").text


def test_figures_come_with_a_picture_and_what_they_assume(app: Flask) -> None:
    before = Browser(app).client.get("/charts/rollout").get_json()["seq"]
    page = Browser(app).get(f"{PAGE}?machines=400&runs=7&fail=100%25&work=5m&poll=30m&seed=3").text
    text = words_of(page)
    assert "How 7 runs ended" in text
    assert "rolled_back from canary 100%" in text
    assert "400 machines ask every 30 min, each at a time of its own" in text
    assert "each works 5 min, any length as likely as another, and then reports" in text
    # Red: it is a failure.
    assert 'class="curve-1"' in page
    assert 'value="100%"' in page
    assert Browser(app).client.get("/charts/rollout").get_json()["seq"] == before


def test_same_seed_gives_the_same_figures(app: Flask) -> None:
    query = f"{PAGE}?machines=60&runs=20&fail=2%25&start=2030-01-07T12:00"
    one, two = (Browser(app).text(f"{query}&seed=1") for _ in range(2))
    assert one == two
    assert Browser(app).text(f"{query}&seed=2") != one


def test_simulation_learns_from_a_run(app: Flask) -> None:
    update(service_of(app), "rollout", Put("canary", "c1"), Author("agent"))
    text = Browser(app).text(f"{PAGE}?machines=20&from_run=1")
    assert "0 % of the tries fail" in text
    problem = Browser(app).get(f"{PAGE}?machines=20&from_run=2")
    assert (problem.status_code, "there is no run 2" in problem.text) == (400, True)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("machines=20001", "machines=20001 is not a whole number from 1 to 20000"),
        ("runs=1001", "runs=1001 is not a whole number from 1 to 1000"),
        ("machines=10000&runs=21", "21 runs of 10,000 machines are more than this page simulates"),
        ("fail=101%25", "fail: '101%' is over 100%"),
        ("fail=much", "is not a percentage, such as 0.5%"),
        ("work=40m..10m", "'10m' is shorter than '40m'"),
        ("poll=0s", "poll must be longer than zero"),
        ("start=noon", "start=noon is not an ISO 8601 instant"),
    ],
)
def test_assumption_out_of_range_is_refused_with_what_was_typed(app: Flask, query: str, problem: str) -> None:
    answer = Browser(app).get(f"{PAGE}?{query}")
    assert answer.status_code == 400
    assert problem in words_of(answer.text)
    assert 'class="problem" role="alert"' in answer.text


def test_simulation_stops_when_its_time_is_over(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_if, "SECONDS", 0.0)
    answer = Browser(app).get(f"{PAGE}?machines=400&runs=50")
    assert answer.status_code == 400
    assert "one run of 400 machines takes more than 0 s of computing" in words_of(answer.text)


def test_runs_that_time_sufficed_for_are_shown(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.lab.simulate.time.thread_time", iter([0.0, *[0.0] * 60, *[9.0] * 9999]).__next__)
    text = Browser(app).text(f"{PAGE}?machines=400&runs=50")
    assert "of 50 runs." in text
    assert "How 50 runs ended" not in text


def test_another_simulation_waits_for_its_turn(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_if, "PATIENCE", 0.01)
    monkeypatch.setattr(what_if, "_turn", threading.Lock())
    with what_if._turn:
        answer = Browser(app).get(f"{PAGE}?machines=5")
    assert (answer.status_code, "busy with other simulations" in answer.text) == (409, True)
    assert "How 100 runs ended" in Browser(app).text(f"{PAGE}?machines=5")


def test_chart_by_a_roster_is_simulated_with_its_machines(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"a1": "rack=a", "a2": "rack=a", "b1": "rack=b"}
    import_roster(service_of(app), RosterRequest("web", lines), Author(actor="test"))
    import_text(app, BY_ROSTER)
    text = Browser(app).text("/ui/charts/by-roster/what-if?runs=5&fail=0%25")
    assert "done from go 100%" in text
    assert "3 machines ask every" in text
    monkeypatch.setattr(what_if, "MAX_MACHINES", 2)
    answer = Browser(app).get("/ui/charts/by-roster/what-if")
    assert (answer.status_code, "this page simulates 2 machines at most" in answer.text) == (400, True)


def test_reader_of_the_chart_may_simulate_it(guarded: Flask) -> None:
    reader = Browser(guarded).signed_in(make_token(guarded, "reader"))
    assert "How 5 runs ended" in reader.text(f"{PAGE}?machines=5&runs=5")
    assert Browser(guarded).get(PAGE).status_code == 303
    other = Browser(guarded).signed_in(make_token(guarded, "reader", name="other", pattern="other*"))
    assert other.get(PAGE).status_code == 403
    assert Browser(guarded).get("/ui/charts/none/what-if").status_code == 303
