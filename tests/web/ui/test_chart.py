"""The page of one chart."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from flask import Flask

from app.core.log import Author
from app.service import reading
from app.service.put import Put, tick
from app.wiring import service_of
from tests.diagram.support import ROLLOUT
from tests.support.apps import import_text
from tests.support.databases import ON_ONE_DATABASE
from tests.support.processes import PATIENCE
from tests.support.requests import claim, update
from tests.web.ui.browser import Browser, words_of

PAGE = "/ui/charts/rollout"
NOTE = "exit 7\nE: dpkg ran out of space\n"


@pytest.fixture
def rollout(app: Flask) -> Flask:
    """A chart in the state fleet, in which ten machines have reported, one of them a failure."""
    for number in range(5):
        update(service_of(app), "rollout", Put("canary", f"c{number}"), Author("agent"))
    for number in range(9):
        update(service_of(app), "rollout", Put("fleet", f"web-{number}"), Author("agent"))
    update(service_of(app), "rollout", Put("fleet", "web-9", "failed", note=NOTE), Author("agent"))
    return app


def rows(page: str, section: str) -> list[str]:
    """The rows of a section's table, as text."""
    body = page.split(f'id="{section}"')[1].split("</section>")[0].split("<tbody>")
    return [words_of(row) for row in body[1].split("</tbody>")[0].split("<tr")[1:]] if len(body) > 1 else []


def test_page_shows_the_status_of_the_chart(rollout: Flask) -> None:
    text = Browser(rollout).text(PAGE)
    assert "fleet waits for rolled_back when failed > 4 (now 1," in text
    assert "9 of 396" in text
    assert "390 have not reported here" in text
    assert "Version 1, run 1, visit 2, log row 16" in text


def test_page_has_the_diagram_and_the_visits(rollout: Flask) -> None:
    page = Browser(rollout).get(PAGE).text
    assert "9 / 396 · 1 failed" in page
    assert page.count('class="s-name"') == 2


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?is=failed", ["web-9"]),
        ("?machine=b-3", ["web-3"]),
        ("?machine=%25", []),
        ("?page=2", []),
        ("?is=failed&machine=web-1", []),
    ],
)
def test_machines_are_searched_and_filtered(rollout: Flask, query: str, names: list[str]) -> None:
    found = rows(Browser(rollout).get(PAGE + query).text, "machine-list")
    assert [row.split("> ")[-1].split()[0].lstrip(">") for row in found] == names


def test_machines_come_a_page_at_a_time(rollout: Flask) -> None:
    for number in range(40):
        update(service_of(rollout), "rollout", Put("fleet", f"more-{number}"), Author("agent"))
    browser = Browser(rollout)
    assert len(rows(browser.get(PAGE).text, "machine-list")) == 20
    assert "Page 1 of 3" in browser.text(PAGE)
    assert len(rows(browser.get(f"{PAGE}?page=3").text, "machine-list")) == 10


def test_missing_machines_are_those_of_the_roster(app: Flask) -> None:
    import_text(
        app, ROLLOUT.replace("expect: 400", "expect: [m1, m2, m3, m4, m5]").replace('value: "1%"', "value: 1"), "r"
    )
    update(service_of(app), "r", Put("canary", "m2"), Author())
    page = Browser(app).get("/ui/charts/r?is=missing&machine=m").text
    assert re.findall(r"<li><a [^>]+>(m\d)</a></li>", page) == ["m1", "m3", "m4", "m5"]


def test_missing_machines_of_a_roster_are_listed_after_the_chart_has_moved_on(app: Flask) -> None:
    assert app.test_client().put("/rosters/web", data="m1\nm2\nm3\nm4\n").status_code == 201
    import_text(app, ROLLOUT.replace("expect: 400", "expect: {roster: web}"), "r")
    update(service_of(app), "r", Put("canary", "m2", "failed"), Author())
    page = Browser(app).get("/ui/charts/r?is=missing").text
    assert re.findall(r"<li><a [^>]+>(m\d)</a></li>", page) == ["m1", "m3", "m4"]
    text = words_of(page)
    assert "machines in canary 1 of 4" in text
    assert "Missing 3" in text


def test_page_without_a_roster_asks_for_one(rollout: Flask) -> None:
    assert "Only a chart with a roster knows which" in Browser(rollout).text(f"{PAGE}?is=missing")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 4),
        ("?kind=all", 16),
        ("?kind=failed", 1),
        ("?words=RAN", 1),
        ("?words=no%20space", 0),
        ("?kind=transition", 1),
        ("?by=web-9", 1),
        ("?kind=all&before=4", 3),
        ("?since=2999-01-01T00:00", 0),
        ("?until=2999-01-01T00:00&kind=update", 14),
        ("?kind=&by=&since=", 4),
    ],
)
@ON_ONE_DATABASE
def test_history_is_filtered_newest_first(rollout: Flask, query: str, count: int) -> None:
    found = rows(Browser(rollout).get(PAGE + query).text, "history-list")
    assert len(found) == count
    numbers = [int(match.group(1)) for row in found if (match := re.search(r">\s*(\d+)", row))]
    assert numbers == sorted(numbers, reverse=True)


def test_history_comes_a_page_at_a_time(rollout: Flask) -> None:
    for number in range(20):
        update(service_of(rollout), "rollout", Put("fleet", f"more-{number}"), Author())
    page = Browser(rollout).get(f"{PAGE}?kind=all").text
    older = re.search(r'href="([^"]+)" rel="next">Older', page)
    assert older is not None
    assert "before=17#history" in older.group(1)


def test_history_folds_what_machines_did(rollout: Flask) -> None:
    page = Browser(rollout).get(PAGE).text
    found = rows(page, "history-list")
    assert ["10 reports, 1 failed" in found[0], "transition" in found[1], "4 reports" in found[2]] == [True] * 3
    link = re.search(r'href="([^"]+)">10 reports', page)
    assert link is not None
    unfolded = rows(Browser(rollout).get(unescape(link.group(1))).text, "history-list")
    assert "failed 0 → 1" in unfolded[0]


def test_history_shows_a_few_rows_of_machines_as_they_are(app: Flask) -> None:
    for number in range(3):
        update(service_of(app), "rollout", Put("canary", f"c{number}"), Author("agent"))
    found = rows(Browser(app).get(PAGE).text, "history-list")
    assert ["count 2 → 3" in found[0], "count 1 → 2" in found[1], "count 0 → 1" in found[2]] == [True] * 3


def test_history_with_many_acts_folds_on_every_page(app: Flask) -> None:
    browser = Browser(app)
    for number in range(15):
        browser.act("rollout", "pause", reason=f"reason {number}")
        browser.act("rollout", "resume", reason="on")
        for machine in range(5):
            update(service_of(app), "rollout", Put("fleet" if number else "canary", f"m{number}-{machine}"), Author())
    page = browser.get(PAGE).text
    older = re.search(r'href="([^"]+)" rel="next">Older', page)
    assert older is not None
    first, second = rows(page, "history-list"), rows(browser.get(unescape(older.group(1))).text, "history-list")
    assert sum("5 reports" in row for row in first + second) == 14
    assert sum("reason 7" in row for row in first + second) == 1


def test_history_folds_leases_that_ran_out(app: Flask) -> None:
    text = ROLLOUT.replace("    func: increment\n", "    func: increment\n    slots: 9\n    lease: 1s\n", 1)
    import_text(app, text, "leased")
    service = service_of(app)
    for number in range(5):
        claim(service, "leased", "canary", f"m{number}")
    now = service.database.clock
    service.database.clock = lambda: (now() if now else datetime.now(UTC)) + timedelta(hours=0.5)
    tick(service, "leased")
    found = rows(Browser(app).get("/ui/charts/leased").text, "history-list")
    assert "5 claims, 5 leases that ran out" in found[0]


def test_log_that_is_too_long_to_count_is_folded_without_kinds(rollout: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_COUNTED", 5)
    assert "10 rows" in rows(Browser(rollout).get(PAGE).text, "history-list")[0]


@pytest.mark.parametrize(("query", "section"), [("?is=failed", "machine-list"), ("?kind=failed", "history-list")])
def test_note_of_a_failure_is_shown(rollout: Flask, query: str, section: str) -> None:
    (row,) = rows(Browser(rollout).get(PAGE + query).text, section)
    assert "exit 7 ⋯ E: dpkg ran out of space" in row


def test_note_is_on_the_machines_page_and_in_the_banner(rollout: Flask) -> None:
    browser = Browser(rollout)
    assert "E: dpkg ran out of space" in browser.text("/ui/machines/web-9")
    assert "E: dpkg ran out of space" in words_of(
        browser.get(PAGE).text.split('class="trouble"')[1].split("</section>")[0]
    )


@pytest.mark.parametrize("query", ["?is=x", "?page=0", "?page=x", "?kind=x", "?since=x", "?before=-1", "?machine=%00"])
def test_malformed_query_is_refused_on_a_page(browser: Browser, query: str) -> None:
    response = browser.get(PAGE + query)
    assert (response.status_code, response.mimetype) == (400, "text/html")


def test_links_of_one_list_keep_the_filter_of_the_other(rollout: Flask) -> None:
    page = Browser(rollout).get(f"{PAGE}?is=failed&kind=update").text
    assert '<input type="hidden" name="is" value="failed">' in page
    assert '<input type="hidden" name="kind" value="update">' in page
    assert f'href="{PAGE}?is=missing&amp;kind=update#machines"' in page


def test_snippets_name_this_service_and_state(rollout: Flask) -> None:
    page = Browser(rollout).get(PAGE).text
    assert "http://localhost/charts/rollout/$1.curl?state=fleet" in page
    assert "STATECTL_URL=http://localhost statectl run rollout -- do-the-work" in page
    assert "ansible.builtin.uri" in page
    assert "execute &#39;fleet&#39; do" in page


def test_snippets_of_an_ended_chart_name_a_state_with_reports(app: Flask) -> None:
    update(service_of(app), "rollout", Put("canary", "m", "failed"), Author())
    text = Browser(app).text(PAGE)
    assert "rolled_back is the end of run 1" in text
    assert "$1.curl?state=canary" in Browser(app).get(PAGE).text


def test_changes_answers_at_once_if_the_log_has_newer_rows(rollout: Flask) -> None:
    started = time.monotonic()
    assert Browser(rollout).get(f"{PAGE}/changes?after=3").json == {"seq": 16}
    assert time.monotonic() - started < PATIENCE


def test_changes_of_an_archived_chart_is_null(app: Flask, browser: Browser) -> None:
    browser.act("rollout", "archive", reason="over")
    assert browser.get(f"{PAGE}/changes?after=1").json == {"seq": None}


def test_changes_waits_for_the_next_row(app: Flask) -> None:
    service_of(app).hub.start()
    seq: list[int] = []
    thread = threading.Thread(target=lambda: seq.append(Browser(app).get(f"{PAGE}/changes?after=1").json["seq"]))
    thread.start()
    time.sleep(0.5)
    assert seq == []
    update(service_of(app), "rollout", Put("canary", "m"), Author())
    thread.join(30)
    service_of(app).hub.close()
    assert seq == [2]


@pytest.mark.parametrize(
    "path", ["/ui/charts/none", "/ui/charts/none/changes?after=1", "/ui/none", "/ui/charts/rollout/versions/9"]
)
def test_unknown_path_is_404_on_a_page(browser: Browser, path: str) -> None:
    response = browser.get(path)
    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_failed_machines_stay_on_the_page_after_the_chart_has_moved_on(rollout: Flask) -> None:
    for number in range(4):
        update(service_of(rollout), "rollout", Put("fleet", f"bad-{number}", "failed"), Author("agent"))
    page = Browser(rollout).get(PAGE).text
    assert "The 5th failure, limit 4, from bad-3 in fleet; 19 of 400 had reported" not in words_of(page)
    assert "The 5th failure, limit 4, from bad-3 in fleet; 14 of 400 had reported" in words_of(page)
    assert "5 failed in fleet" in words_of(page)
    assert ">bad-0,bad-1,bad-2,bad-3,web-9</span>" in page
    assert 'class="d-state d-current d-off d-failed"' in page


@pytest.mark.parametrize(("query", "names"), [("?state=canary", 5), ("?visit=1&is=failed", 0), ("?visit=2", 10)])
def test_machines_of_an_earlier_visit_are_shown(rollout: Flask, query: str, names: int) -> None:
    assert len(rows(Browser(rollout).get(PAGE + query).text, "machine-list")) == names


def test_state_that_was_not_entered_has_no_machines_to_show(rollout: Flask) -> None:
    assert Browser(rollout).get(f"{PAGE}?state=done").status_code == 400


def test_states_of_the_diagram_link_to_their_machines_and_the_path_is_thick(rollout: Flask) -> None:
    page = Browser(rollout).get(PAGE).text
    assert f'<a href="{PAGE}?state=canary#machines"><g class="d-state d-passed">' in page
    # Once in the diagram, and once in that for a phone.
    assert page.count('class="d-taken"') == 2


def test_page_of_a_machine_has_its_reports(rollout: Flask) -> None:
    text = Browser(rollout).text("/ui/machines/web-9")
    assert "fleet failed" in text
    assert "No chart has heard of this machine." in Browser(rollout).text("/ui/machines/nobody%2F1")


def test_bar_of_a_visit_off_the_main_path_is_marked(rollout: Flask) -> None:
    browser = Browser(rollout)
    assert '<li class="is-now is-running">' in browser.get(PAGE).text
    for number in range(4):
        update(service_of(rollout), "rollout", Put("fleet", f"bad-{number}", "failed"), Author("agent"))
    assert '<li class="is-now is-failed">' in browser.get(PAGE).text


def test_history_says_which_version_of_a_calendar_is_in_force(app: Flask) -> None:
    events = "BEGIN:VEVENT\r\nUID:1@x\r\nDTSTART:20310101T000000Z\r\nDTEND:20310102T000000Z\r\nEND:VEVENT\r\n"
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//x//y//EN\r\n{events}END:VCALENDAR\r\n"
    assert app.test_client().put("/calendars/freeze", data=text).status_code == 201
    import_text(app, ROLLOUT.replace("    func: increment\n", "    func: increment\n    except: [freeze]\n", 1), "r")
    assert "calendar canary freeze version 1" in Browser(app).text("/ui/charts/r")


def test_page_names_the_roster_that_the_chart_goes_by(app: Flask) -> None:
    client = app.test_client()
    assert client.put("/rosters/fleet", data="a tier=lb\nb\nc\n").status_code == 201
    import_text(app, "chart: by\ncurrent_state: go\nexpect: {roster: fleet}\nstates: [{name: go}]\n")
    assert "Roster fleet , version 1: 3 machines" in words_of(client.get("/ui/charts/by").get_data(as_text=True))


def test_machines_at_work_when_the_chart_moved_on_are_listed(app: Flask) -> None:
    import_text(app, ROLLOUT.replace("    func: increment\n", "    func: increment\n    slots: 9\n", 1), "slotted")
    for number in range(6):
        claim(service_of(app), "slotted", "canary", f"c{number}")
    for number in range(5):
        update(service_of(app), "slotted", Put("canary", f"c{number}"), Author("agent"))
    page = Browser(app).get("/ui/charts/slotted?visit=1&is=working").text
    assert "At work when it moved on 1" in words_of(page)
    assert ["c5" in row for row in rows(page, "machine-list")] == [True]
    assert 'id="unseen-work"' not in page
    assert "is not known, because the state has no slots" in Browser(app).text("/ui/charts/slotted")
