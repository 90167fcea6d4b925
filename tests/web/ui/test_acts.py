"""The acts on a chart's page, and the roles that they need."""

from __future__ import annotations

import pytest
from flask import Flask

from app.core.errors import ChartNotFoundError
from app.core.log import Author, HashedRow, HistoryFilter
from app.service.put import Put
from app.service.reading import get_status, iterate_history
from app.wiring import service_of
from tests.support.apps import import_text
from tests.support.requests import update
from tests.web.ui.browser import Browser, make_token


def last_row(app: Flask) -> HashedRow:
    return list(iterate_history(service_of(app), "rollout", HistoryFilter()))[-1]


def test_pause_and_resume_keep_their_reasons(app: Flask, browser: Browser) -> None:
    assert browser.act("rollout", "pause", reason="  the  peak ").location == "/ui/charts/rollout?done=pause"
    assert last_row(app).row.reason == "the peak"
    assert "Paused." in browser.text("/ui/charts/rollout?done=pause")
    assert browser.act("rollout", "resume", reason="over").status_code == 303
    assert (last_row(app).row.kind, last_row(app).row.reason) == ("resume", "over")


def test_goto_moves_the_chart(app: Flask, browser: Browser) -> None:
    assert browser.act("rollout", "goto", state="fleet", reason="we know").status_code == 303
    assert get_status(service_of(app), "rollout").current_state == "fleet"


def test_reset_begins_the_next_run(app: Flask, browser: Browser) -> None:
    assert browser.act("rollout", "reset", reason="again").status_code == 303
    assert get_status(service_of(app), "rollout").run == 2


def test_archived_chart_is_404(app: Flask, browser: Browser) -> None:
    assert browser.act("rollout", "archive", reason="done with it").location == "/"
    with pytest.raises(ChartNotFoundError):
        get_status(service_of(app), "rollout")
    assert browser.get("/ui/charts/rollout").status_code == 404


def test_evict_takes_a_slot_away(app: Flask, browser: Browser) -> None:
    import_text(
        app,
        "current_state: s\nexpect: [a, b]\nstates:\n  - {name: s, func: increment, slots: 1,"
        " current: {key: count, value: 0}, target: {name: e, when: {key: count, value: 2}}}\n  - name: e\n",
        "slotted",
    )
    assert browser.client.put("/charts/slotted/slot?state=s&machine=a").status_code == 200
    assert "1 of 1 held" in browser.text("/ui/charts/slotted")
    assert browser.act("slotted", "evict", machine="a", reason="it is gone").status_code == 303
    assert "0 of 1 held" in browser.text("/ui/charts/slotted")


@pytest.mark.parametrize("act", ["pause", "reset", "goto", "archive"])
@pytest.mark.parametrize("reason", ["", "   "])
def test_act_without_a_reason_does_nothing(app: Flask, browser: Browser, act: str, reason: str) -> None:
    assert browser.act("rollout", act, reason=reason, state="fleet").status_code == 422
    assert last_row(app).row.kind == "import"


@pytest.mark.parametrize(("act", "status"), [("explode", 400), ("goto", 400), ("resume", 409)])
def test_impossible_act_is_refused_on_a_page(browser: Browser, act: str, status: int) -> None:
    response = browser.act("rollout", act, reason="x")
    assert response.status_code == status
    assert response.mimetype == "text/html"


def test_actor_is_the_tokens_name(guarded: Flask) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, "operator", "jonas"))
    browser.act("rollout", "pause", reason="lag")
    assert last_row(guarded).row.actor == "jonas"


@pytest.mark.parametrize(
    ("role", "buttons"),
    [
        ("reader", set()),
        ("machine", set()),
        ("operator", {"pause", "goto", "reset"}),
        ("admin", {"pause", "goto", "reset", "archive"}),
    ],
)
def test_page_has_the_buttons_of_the_role(guarded: Flask, role: str, buttons: set[str]) -> None:
    page = Browser(guarded).signed_in(make_token(guarded, role)).get("/ui/charts/rollout").text
    assert {
        act for act in ("pause", "goto", "reset", "archive") if f'action="/ui/charts/rollout/{act}"' in page
    } == buttons


@pytest.mark.parametrize(
    ("role", "allowed"), [("reader", set()), ("operator", {"pause", "reset"}), ("admin", {"pause", "reset", "archive"})]
)
def test_server_checks_the_role_of_an_act(guarded: Flask, role: str, allowed: set[str]) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, role))
    token = browser.find_form_token("/ui/charts/rollout")
    for act in ("pause", "reset", "archive"):
        response = browser.post(f"/ui/charts/rollout/{act}", {"reason": "x"}, form_token=token)
        assert (response.status_code == 303) == (act in allowed), act


def test_pattern_hides_and_refuses_other_charts(guarded: Flask) -> None:
    import_text(guarded, "current_state: a\nstates: [{name: a}]\n", "other")
    browser = Browser(guarded).signed_in(make_token(guarded, "admin", "few", "roll*"))
    assert "other" not in browser.text("/")
    assert browser.get("/ui/charts/other").status_code == 403
    assert browser.post("/ui/charts/other/reset", {"reason": "x"}, page="/ui/charts/rollout").status_code == 403
    assert browser.get("/ui/tokens").status_code == 403


@pytest.mark.parametrize(("act", "fields"), [("goto", {"state": "fleet"}), ("reset", {}), ("archive", {})])
def test_dry_run_in_a_dialog_says_what_would_be_lost(
    app: Flask, browser: Browser, act: str, fields: dict[str, object]
) -> None:
    update(service_of(app), "rollout", Put("canary", "m1"), Author())
    assert "1 on count in canary is lost" in browser.text("/ui/charts/rollout")
    answer = browser.act("rollout", act, dry_run="1", **fields)
    assert (answer.status_code, answer.json["lost"].split(";")[0]) == (200, "1 on count in canary is lost")
    assert "Then it is in " in answer.json["then"]
    assert last_row(app).row.kind == "update"


def test_dry_run_of_resume_says_where_the_chart_would_be(app: Flask, browser: Browser) -> None:
    browser.act("rollout", "pause", reason="a look at it")
    running = browser.act("rollout", "resume", dry_run="1").json
    assert running["lost"] is None
    assert running["then"].startswith("Then it is in canary, run 1: canary has count 0")
    update(service_of(app), "rollout", Put("canary", "m1", "failed"), Author())
    assert browser.act("rollout", "resume", dry_run="1").json["then"].startswith("Then it is in rolled_back, run 1: ")
    assert last_row(app).row.kind == "update"


def test_goto_has_no_state_preselected(browser: Browser) -> None:
    page = browser.get("/ui/charts/rollout").text
    assert '<option value="">Choose…</option>' in page
    assert " selected" not in page.split('id="goto-state"')[1].split("</select>")[0]


def test_refused_act_opens_its_dialog_again_with_what_was_typed(browser: Browser) -> None:
    response = browser.act("rollout", "goto", state="nowhere", reason="we <know>")
    dialog = response.text.split('id="act-goto"')[1].split("</dialog>")[0]
    assert response.status_code == 400
    assert "chart &#39;rollout&#39; has no state &#39;nowhere&#39;" in dialog
    assert 'value="we &lt;know&gt;"' in dialog
    again = browser.act("rollout", "goto", state="fleet", reason=" ").text.split('id="goto-state"')[1]
    assert "<option selected>fleet</option>" in again.split("</select>")[0]
