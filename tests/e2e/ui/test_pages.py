"""Every page is accessible, fits a phone, is fast, and writes nothing to the console."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.ui.charts import YAML, chain, new_chart, rollout
from tests.e2e.ui.conftest import Client, Open
from tests.support.servers import beside

ROWS = 100_000
# Each page takes about half a second; the limit leaves room for a busy computer.
BUSY_SECONDS = 10
PHONES = [390, 360]
# The ids or classes of the elements whose content is wider than they are.
SCROLLING = """() => [...document.querySelectorAll("main *")]
    .filter((item) => item.scrollWidth > item.clientWidth + 1)
    .filter((item) => ["auto", "scroll"].includes(getComputedStyle(item).overflowX))
    .map((item) => item.id || item.className || item.tagName)"""
# The buttons, fields and links that are less than 44 px wide or high.
SMALL_TARGETS = """() => [...document.querySelectorAll("a[href], button, select, textarea, input:not([type=hidden])")]
    .map((item) => [item, item.getBoundingClientRect()])
    .filter(([item, box]) => box.width > 1 && !item.matches(".skip") && (box.width < 44 || box.height < 44))
    .map(([item, box]) => `${item.outerHTML.slice(0, 80)} ${box.width} x ${box.height}`)"""
PATHS = [
    "/",
    "/?show=stuck",
    "/ui/charts/{name}",
    "/ui/charts/{name}?is=missing&kind=pause",
    "/ui/charts/{name}/versions/2",
    "/ui/charts/{name}/runs",
    "/ui/charts/{name}/what-if",
    "/ui/charts/{name}/what-if?machines=50&fail=10%25",
    "/ui/machines/m1",
    "/ui/rosters",
    "/ui/import",
    "/ui/import?chart={name}",
    "/docs",
    "/ui/tokens",
    "/ui/subscriptions",
]


@pytest.fixture
def busy(client: Client) -> str:
    """A chart with two versions, reports, a failure, slots and a pause."""
    name = new_chart(client, rollout(needed=9))
    client.ask(
        "PUT",
        f"/charts/{name}",
        rollout(needed=15).replace("    func: increment\n", "    func: increment\n    slots: 3\n", 1),
    )
    for number in range(8):
        client.ask("PUT", f"/charts/{name}/slot?state=canary&machine=m{number}")
        if number < 6:
            key = "&key=failed" if number == 3 else ""
            client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m{number}{key}")
    client.ask("POST", f"/charts/{name}/pause", '{"reason": "a look at it"}', Content_Type="application/json")
    put_roster(client)
    return name


def put_roster(client: Client) -> None:
    """Import a roster of 2,000 machines, which a chart follows, and another one that none does."""
    lines = [f"web-{number:04} zone={'abc'[number % 3]} rack=r{number % 50}\n" for number in range(2000)]
    for name in ("fleet", "an-inventory-with-a-long-name" * 4):
        client.ask("PUT", f"/rosters/{name}", "".join(lines[1:]))
        client.ask("PUT", f"/rosters/{name}", "".join(lines))
    client.ask("PUT", "/charts/by-roster", rollout().replace("expect: 20", "expect: {roster: fleet}"), **YAML)


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{item['id']}: {node['html'][:200]} {node['failureSummary']}" for item in found for node in item["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_accessible(open_page: Open, busy: str, width: int, scheme: str) -> None:
    page = open_page("admin", viewport={"width": width, "height": 900}, color_scheme=scheme)
    for path in PATHS:
        page.goto(path.format(name=busy))
        assert violations(page) == [], path
    page.goto(f"/ui/charts/{busy}")
    page.get_by_role("button", name="Resume…").click()
    assert violations(page) == []


def test_login_and_errors_are_accessible(open_page: Open, client: Client) -> None:
    page = open_page("admin")
    page.context.clear_cookies()
    page.goto("/ui/login")
    assert violations(page) == []


def test_import_with_problems_is_accessible(open_page: Open) -> None:
    page = open_page("admin", "/ui/import")
    page.get_by_label("Name").fill("with-problems")
    page.get_by_label("Chart file (YAML)").fill(rollout().replace("increment", "incremet", 1))
    page.get_by_role("button", name="Check").click()
    expect(page.locator("tr.is-bad")).to_have_count(1)
    assert violations(page) == []


@pytest.mark.parametrize("width", [390, 360, 320, 768, 1280])
def test_no_page_scrolls_sideways(open_page: Open, client: Client, busy: str, width: int) -> None:
    long = new_chart(client, rollout(description="x" * 300), prefix="a-very-long-name-of-a-chart-" * 4)
    client.ask("PUT", f"/charts/{long}/state?state=canary&machine={'m' * 255}")
    page = open_page("admin", viewport={"width": width, "height": 844})
    for path in [*(path.format(name=busy) for path in PATHS), f"/ui/charts/{long}", f"/?q={long}"]:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("width", PHONES)
def test_no_part_of_a_page_scrolls_sideways_on_a_phone(open_page: Open, client: Client, busy: str, width: int) -> None:
    client.ask("POST", f"/charts/{busy}/resume", '{"reason": "one long id"}', Content_Type="application/json")
    client.ask("PUT", f"/charts/{busy}/slot?state=canary&machine={'m' * 255}")
    client.ask("PUT", f"/charts/{busy}/state?state=canary&machine={'m' * 255}")
    page = open_page("admin", viewport={"width": width, "height": 844})
    for path in PATHS:
        page.goto(path.format(name=busy))
        assert page.evaluate(SCROLLING) == [], path


@pytest.mark.parametrize("width", PHONES)
@pytest.mark.parametrize("text", [rollout(), chain(9), chain(40)], ids=["rollout", "chain of 9", "chain of 40"])
def test_diagram_fits_a_phone_and_can_be_read(open_page: Open, client: Client, text: str, width: int) -> None:
    page = open_page("reader", f"/ui/charts/{new_chart(client, text)}", viewport={"width": width, "height": 844})
    expect(page.locator("#diagram")).to_be_hidden()
    room = page.locator("#diagram-narrow")
    assert page.evaluate(SCROLLING) == []
    picture, outer = room.locator("svg").bounding_box(), room.bounding_box()
    assert picture is not None
    assert outer is not None
    assert outer["x"] <= picture["x"]
    assert picture["x"] + picture["width"] <= outer["x"] + outer["width"] + 1
    # No text is cut at the right edge, and none is smaller than 11 px.
    ends = room.evaluate(
        "room => [...room.querySelectorAll('svg text')].map(text => text.getBoundingClientRect())"
        ".filter(box => box.right > room.getBoundingClientRect().right || box.height < 11).length"
    )
    assert ends == 0


def test_runs_are_cards_on_a_phone(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    for _ in range(6):
        client.ask("POST", f"/charts/{name}/reset", '{"reason": "again"}', Content_Type="application/json")
    page = open_page("reader", f"/ui/charts/{name}/runs", viewport={"width": 360, "height": 844})
    assert page.evaluate(SCROLLING) == []
    expect(page.locator("tbody tr").first).to_have_css("display", "flex")
    expect(page.locator(".compared")).to_contain_text("run 6")


@pytest.mark.parametrize("width", PHONES)
def test_table_row_is_a_card_with_named_values_on_a_phone(open_page: Open, busy: str, width: int) -> None:
    page = open_page("reader", f"/ui/charts/{busy}", viewport={"width": width, "height": 844})
    for table in ("#slots", "#machine-list", "#history-list"):
        row = page.locator(f"{table} tbody tr").first
        expect(row).to_have_css("display", "flex")
        name = row.locator("[data-label]").first
        assert name.evaluate("cell => getComputedStyle(cell, '::before').content").startswith('"'), table
        box = row.bounding_box()
        assert box is not None
        assert box["width"] > width * 0.75, table


def test_table_row_is_a_line_on_a_desk(open_page: Open, busy: str) -> None:
    page = open_page("reader", f"/ui/charts/{busy}")
    expect(page.locator("#history-list tbody tr").first).to_have_css("display", "table-row")


@pytest.mark.parametrize("width", PHONES)
def test_buttons_fields_and_links_are_44_pixels_on_a_phone(open_page: Open, busy: str, width: int) -> None:
    page = open_page("admin", viewport={"width": width, "height": 844})
    for path in PATHS:
        page.goto(path.format(name=busy))
        assert page.evaluate(SMALL_TARGETS) == [], path


def test_chart_of_two_thousand_machines_is_less_than_6000_pixels_high_on_a_phone(
    open_page: Open, client: Client
) -> None:
    roster = ", ".join(f"fra-web-{number}" for number in range(2000))
    text = rollout(needed=300).replace("expect: 20", f"expect: [{roster}]")
    name = new_chart(client, text.replace("    func: increment\n", "    func: increment\n    slots: 50\n", 1))
    for number in range(60):
        client.ask("PUT", f"/charts/{name}/slot?state=canary&machine=fra-web-{number}")
        if number >= 20:
            key = "&key=failed" if number in (20, 21) else ""
            client.ask("PUT", f"/charts/{name}/state?state=canary&machine=fra-web-{number - 20}{key}&note=a+few+words")
    for kind in ("", "?is=failed", "?is=missing", "?is=working", "?kind=all"):
        page = open_page("admin", f"/ui/charts/{name}{kind}", viewport={"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollHeight") < 6000, kind
        page.context.close()


def test_chart_of_a_roster_of_two_thousand_is_less_than_6000_pixels_high_at_360(
    open_page: Open, client: Client
) -> None:
    put_roster(client)
    text = rollout().replace("expect: 20", "expect: {roster: fleet}")
    name = new_chart(client, text.replace("    func: increment\n", "    func: increment\n    slots: 50\n", 1))
    for number in range(25):
        client.ask("PUT", f"/charts/{name}/slot?state=canary&machine=web-{number:04}")
    client.ask("PUT", f"/charts/{name}/state?state=canary&machine=web-0001&key=failed", "one\ntwo\nthree")
    page = open_page("admin", viewport={"width": 360, "height": 780})
    for query in ("", "?is=missing", "?is=working", "?kind=all&is=missing"):
        page.goto(f"/ui/charts/{name}{query}")
        assert page.evaluate("document.documentElement.scrollHeight") < 6000, query


def test_long_lists_with_long_notes_are_less_than_6000_pixels_high_on_a_phone(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(needed=300).replace("value: 3}", "value: 200}").replace("20", "2000", 1))
    note = "\n".join(f"E: line {number}: " + "dpkg could not be configured " * 3 for number in range(9))
    for number in range(25):
        key = "failed" if number % 5 else "count"
        client.ask(
            "PUT", f"/charts/{name}/state?state=canary&machine=fra-web-{number}.prod.example.net&key={key}", note
        )
    for query in ("?kind=all", "?kind=failed", "?is=failed", "?is=failed&kind=all", "?kind=all&by=&words=dpkg"):
        page = open_page("admin", f"/ui/charts/{name}{query}", viewport={"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollHeight") < 6000, query


def test_list_shows_five_cards_on_a_phone_until_the_others_are_asked_for(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(needed=20))
    for number in range(19):
        client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m{number}")
    page = open_page("reader", f"/ui/charts/{name}?kind=all", viewport={"width": 390, "height": 844})
    for place, count in (("#machine-list", 19), ("#history-list", 20)):
        rows = page.locator(f"{place} tbody tr")
        expect(rows.nth(4)).to_be_visible()
        expect(rows.nth(5)).to_be_hidden()
        page.locator(place).get_by_text(f"{count - 5} more rows").click()
        expect(rows.nth(count - 1)).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.reload()
    expect(page.locator("#history-list tbody tr").nth(19)).to_be_visible()
    expect(page.get_by_text("more rows")).to_have_count(2)
    expect(page.get_by_text("more rows").first).to_be_hidden()


def test_edges_at_which_the_diagram_is_cut_fade(open_page: Open, client: Client) -> None:
    page = open_page("reader", f"/ui/charts/{new_chart(client, chain(40))}")
    diagram = page.locator("#diagram")
    expect(diagram).to_have_class("scroll cut-bottom")
    diagram.evaluate("room => { room.scrollTop = room.scrollHeight; }")
    expect(diagram).to_have_class("scroll cut-top")
    page.set_viewport_size({"width": 700, "height": 900})
    expect(diagram).to_have_class("scroll cut-top cut-right")


def test_times_are_written_as_the_person_chose_last(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("reader", f"/ui/charts/{name}", timezone_id="Europe/Berlin")
    entered = page.locator("#visits time")
    stamp = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
    expect(entered).to_have_attribute("title", re.compile(f"^{stamp} UTC, {stamp} Europe/Berlin$"))
    utc, local = str(entered.get_attribute("title")).split(", ")
    page.get_by_label("Times").select_option("local")
    expect(entered).to_have_text(local)
    page.reload()
    expect(entered).to_have_text(local)
    client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m1")
    expect(page.locator("#numbers .big").first).to_contain_text("1 of 5")
    expect(entered).to_have_text(local)
    page.get_by_label("Times").select_option("utc")
    expect(entered).to_have_text(utc)
    expect(page.locator("#zone")).to_have_text("Times are UTC.")


def test_pages_load_nothing_from_other_hosts(open_page: Open, busy: str) -> None:
    page = open_page("admin")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PATHS:
        page.goto(path.format(name=busy))
    base = page.url.split("/ui/")[0]
    assert [url for url in asked if not url.startswith((base, "data:"))] == []


def test_pages_work_without_a_script(open_page: Open, busy: str) -> None:
    page = open_page("operator", f"/ui/charts/{busy}", java_script_enabled=False)
    page.get_by_role("button", name="Resume…").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("without a script")
    page.get_by_role("dialog").get_by_role("button", name="Resume", exact=True).click()
    expect(page.locator("#now")).to_contain_text("waits for")
    page.get_by_role("link", name="Failed 1").click()
    expect(page.locator("#machines tbody tr")).to_have_count(1)
    page.goto("/")
    page.get_by_label("Search charts").fill(busy)
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".chart")).to_have_count(1)


def test_printing_gives_the_record(open_page: Open, busy: str) -> None:
    page = open_page("admin", f"/ui/charts/{busy}")
    page.emulate_media(media="print")
    for locator in (page.locator("#diagram"), page.locator("#machine-list"), page.locator("#history-list")):
        expect(locator).to_be_visible()
    for locator in (page.get_by_role("navigation", name="Main"), page.locator("#acts"), page.locator("#history form")):
        expect(locator).to_be_hidden()
    expect(page.get_by_text("read at")).to_be_visible()


def seconds_of(page: Page, path: str) -> float:
    """Seconds from the request to the drawn page: the best of three, because other work on this host only adds time."""
    taken = []
    for _ in range(3):
        page.goto(path)
        timing: dict[str, Any] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
        taken.append((timing["domComplete"] - timing["requestStart"]) / 1000)
    return min(taken)


def test_chart_of_a_thousand_states_is_shown_quickly(open_page: Open, client: Client) -> None:
    name = new_chart(client, chain(1000))
    page = open_page("reader")
    assert seconds_of(page, f"/ui/charts/{name}") < BUSY_SECONDS
    assert seconds_of(page, f"/charts/{name}/diagram") < BUSY_SECONDS
    expect(page.locator("svg")).to_have_count(1)


def test_log_of_a_hundred_thousand_rows_is_shown_quickly(open_page: Open, client: Client, ui_database_url: str) -> None:
    name = new_chart(client, rollout())
    with beside(ui_database_url) as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(seq) AS (SELECT 2 UNION ALL SELECT seq + 1 FROM n WHERE seq < ?)"
            " INSERT INTO transition_log (chart, version, run, visit, seq, at, kind, from_state, to_state, key,"
            " value_before, value_after, machine, hash)"
            " SELECT ?, 1, 1, 1, seq, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-' || (? - seq) || ' seconds'),"
            " 'update', 'canary', 'canary', 'count', seq - 2, seq - 1, 'm' || seq, '' FROM n",
            (ROWS, name, ROWS),
        )
        connection.exec_driver_sql("UPDATE charts SET seq = ? WHERE name = ?", (ROWS, name))
    page = open_page("reader")
    for query in ("", "?kind=all&before=50000", "?kind=pause", "?by=m77", "?words=m77"):
        assert seconds_of(page, f"/ui/charts/{name}{query}") < BUSY_SECONDS, query
    page.goto(f"/ui/charts/{name}")
    expect(page.locator("#growth")).to_contain_text("of 5 on count")
    expect(page.locator("#history-list tbody tr")).to_have_count(2)
    expect(page.locator("#history-list")).to_contain_text("99,999 reports")
    page.goto("/")
    expect(page.get_by_role("link", name=name)).to_be_visible()
