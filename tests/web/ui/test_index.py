"""The page of all charts: the most urgent first, searched and filtered."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app.core.log import Author
from app.service import operate
from app.service.pages import list_glances
from app.service.put import Put
from app.wiring import service_of
from tests.diagram.support import ROLLOUT
from tests.support.apps import import_text
from tests.support.growth import count_calls
from tests.support.requests import update
from tests.web.ui.browser import Browser

NOW = datetime.now(UTC)
AUTHOR = Author(actor="test")


def set_clock(app: Flask, hours: float) -> None:
    service_of(app).database.clock = lambda: NOW + timedelta(hours=hours)


def shown(browser: Browser, query: str = "") -> list[str]:
    """The charts on the page, from top to bottom."""
    page = browser.get(f"/{query}")
    assert page.status_code == 200, page.text
    return re.findall(r'class="c-name"><a href="/ui/charts/([^"]+)"', page.text)


def conditions(app: Flask) -> dict[str, str]:
    return {glance.status.chart: str(glance.health.condition) for glance in list_glances(service_of(app))}


@pytest.fixture
def fleet(app: Flask) -> Flask:
    """A chart in each condition, imported the least urgent first."""
    service = service_of(app)
    set_clock(app, 0)
    operate.archive(service, "rollout", "not this one", AUTHOR)
    import_text(app, "current_state: e\nstates: [{name: e}]\n", "e-ended")
    import_text(app, ROLLOUT, "d-running")
    for name in ("c-paused", "b-failed"):
        import_text(app, ROLLOUT, name)
    operate.pause(service, "c-paused", "the peak", AUTHOR)
    update(service, "b-failed", Put("canary", "m", "failed"), AUTHOR)
    import_text(app, ROLLOUT, "a-stuck")
    import_text(app, ROLLOUT.replace("1h", "9h"), "d-running")
    set_clock(app, 0.6)
    return app


def test_most_urgent_is_first(fleet: Flask) -> None:
    assert shown(Browser(fleet)) == ["b-failed", "a-stuck", "c-paused", "d-running", "e-ended"]
    assert [conditions(fleet)[name] for name in shown(Browser(fleet))] == [name[2:] for name in shown(Browser(fleet))]
    text = Browser(fleet).text("/")
    assert "the 1st failure, limit 1, from m in canary; 1 of 400 had reported" in text
    assert "nothing has happened in canary for 36 min, more than half of the 1 h" in text


def test_page_says_who_paused_and_why(fleet: Flask) -> None:
    assert "test paused it 36 min ago: the peak" in Browser(fleet).text("/")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?show=paused", ["c-paused"]),
        ("?q=STUCK", ["a-stuck"]),
        ("?q=canary", ["a-stuck", "c-paused", "d-running"]),
        ("?q=canary+run&show=running", ["d-running"]),
        ("?q=nothing", []),
        ("?q=&show=", ["b-failed", "a-stuck", "c-paused", "d-running", "e-ended"]),
    ],
)
def test_search_and_filter_work_without_a_script(fleet: Flask, query: str, names: list[str]) -> None:
    assert shown(Browser(fleet), query) == names


def test_unknown_filter_is_refused_on_a_page(browser: Browser) -> None:
    response = browser.get("/?show=<b>")
    assert (response.status_code, response.mimetype) == (400, "text/html")
    assert "<b>" not in response.text


def test_sparkline_counts_the_rows_of_the_last_day(app: Flask) -> None:
    service = service_of(app)
    set_clock(app, 0)
    import_text(
        app,
        "current_state: a\nstates: [{name: a, func: increment, current: {key: k, value: 0},"
        " target: {name: b, when: {key: k, value: 999}}}, {name: b}]\n",
        "busy",
    )
    for number in range(60):
        set_clock(app, 30 + number / 10)
        update(service, "busy", Put("a"), AUTHOR)
    set_clock(app, 36)
    bars = next(glance.bars for glance in list_glances(service) if glance.status.chart == "busy")
    # Rows between two samples are spread evenly, so the quiet hours before get some of the first rows.
    assert sum(bars[-6:]) == pytest.approx(60, abs=8)
    assert max(bars[:-7]) < 1


def test_empty_list_links_to_import(app: Flask, browser: Browser) -> None:
    operate.archive(service_of(app), "rollout", "x", AUTHOR)
    assert "There are no charts yet. Import one" in browser.text("/")


def test_work_grows_with_the_charts_that_are_shown(app: Flask, browser: Browser) -> None:
    for number in range(49):
        import_text(app, ROLLOUT, f"chart-{number:03}")
    browser.get("/")  # the definitions are read once
    fifty = count_calls(lambda: browser.get("/"))
    for number in range(49, 99):
        import_text(app, ROLLOUT, f"chart-{number:03}")
    assert len(shown(browser)) == 100
    assert count_calls(lambda: browser.get("/")) < 2.2 * fifty
