"""The page of all rosters."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from app.core.log import Author
from app.service.rosters import RosterRequest, import_roster
from app.wiring import service_of
from tests.support.apps import import_text
from tests.web.ui.browser import Browser, make_token

ANN = Author(actor="ann")
FOLLOWING = """\
current_state: fleet
expect: {{roster: {roster}}}
states:
- name: fleet
  func: increment
  current: {{key: count, value: 0}}
  target: {{name: done, when: {{key: count, value: "100%"}}}}
- name: done
"""


def put_roster(app: Flask, name: str, machines: int) -> None:
    lines = {f"web-{number:04}": "rack=r1" for number in range(machines)}
    import_roster(service_of(app), RosterRequest(name, lines), ANN)


def rows(browser: Browser) -> list[list[str]]:
    """The cells of the table, as text, from top to bottom."""
    body = browser.get("/ui/rosters").text.partition("<tbody>")[2].partition("</tbody>")[0]
    found = [re.findall(r"<td.*?</td>", row, flags=re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[" ".join(re.sub(r"<[^>]*>", "", cell).split()) for cell in row] for row in found]


def test_page_lists_every_roster_with_its_newest_version(app: Flask, browser: Browser) -> None:
    put_roster(app, "web", 1999)
    put_roster(app, "web", 2000)
    put_roster(app, "db", 3)
    import_text(app, FOLLOWING.format(roster="web"), "nightly")
    import_text(app, FOLLOWING.format(roster="web"), "again")
    (db, web) = rows(browser)
    assert db[:3] == ["db", "3", "1"]
    assert db[4:] == ["the first version", "none"]
    assert web[:3] == ["web", "2,000", "2"]
    assert web[3].endswith("by ann")
    assert web[4:] == ["1 added, 0 removed, 0 changed", "again, nightly"]


def test_page_says_how_a_roster_comes_in_when_there_is_none(browser: Browser) -> None:
    assert "There are no rosters yet." in browser.get("/ui/rosters").text


@pytest.mark.parametrize("page", ["/", "/ui/charts/rollout"])
def test_rosters_are_linked_from_every_page(browser: Browser, page: str) -> None:
    assert 'href="/ui/rosters"' in browser.get(page).text


def test_chart_links_to_the_roster_that_it_goes_by(app: Flask, browser: Browser) -> None:
    put_roster(app, "web", 3)
    import_text(app, FOLLOWING.format(roster="web"), "nightly")
    assert 'href="/ui/rosters#roster-web"' in browser.get("/ui/charts/nightly").text
    assert 'id="roster-web"' in browser.get("/ui/rosters").text


def test_page_names_only_charts_that_the_viewer_may_see(guarded: Flask) -> None:
    put_roster(guarded, "web", 3)
    import_text(guarded, FOLLOWING.format(roster="web"), "nightly")
    import_text(guarded, FOLLOWING.format(roster="web"), "rollout-2")
    browser = Browser(guarded).signed_in(make_token(guarded, "reader", pattern="roll*"))
    ((*_, charts),) = rows(browser)
    assert charts == "rollout-2"


def test_page_names_ten_charts_and_counts_the_rest(app: Flask, browser: Browser) -> None:
    put_roster(app, "web", 3)
    for number in range(12):
        import_text(app, FOLLOWING.format(roster="web"), f"chart-{number:02}")
    ((*_, charts),) = rows(browser)
    assert charts.endswith("chart-09 and 2 more")


def test_page_of_a_chart_names_full_groups_and_who_fills_them(app: Flask, browser: Browser) -> None:
    put_roster(app, "web", 8)
    slots = "func: increment\n  slots: {total: 8, per: {rack: 5}}"
    import_text(app, FOLLOWING.format(roster="web").replace("func: increment", slots), "grouped")
    for number in range(4):
        browser.client.put(f"/charts/grouped/slot?state=fleet&machine=web-{number:04}")
    assert "Full:" not in browser.text("/ui/charts/grouped")
    browser.client.put("/charts/grouped/slot?state=fleet&machine=web-0004")
    assert "Full: rack=r1 (web-0000, web-0001, web-0002 and 2 more)" in browser.text("/ui/charts/grouped")
