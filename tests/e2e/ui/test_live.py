"""An open page keeps up with its chart, and says if it cannot."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.ui.charts import new_chart
from tests.e2e.ui.conftest import Client, Open, context_of
from tests.support.processes import PATIENCE, free_port
from tests.support.servers import running


def wait_until_watching(page: Page, name: str) -> None:
    """Open a chart's page and return once it waits for the next row."""
    with page.expect_request(lambda request: f"/ui/charts/{name}/changes" in request.url):
        page.goto(f"/ui/charts/{name}")
    page.wait_for_timeout(300)


def test_page_shows_a_put_by_another_client(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("reader")
    wait_until_watching(page, name)
    for number in range(1, 6):
        client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m{number}")
        started = time.monotonic()
        if number < 5:
            expect(page.locator("#numbers .big").first).to_contain_text(f"{number} of 5")
        else:
            expect(page.locator("#now strong")).to_have_text("fleet")
        assert time.monotonic() - started < PATIENCE
        expect(page.locator("#machine-list")).to_contain_text(
            f"m{number}" if number < 5 else "No machine in this visit"
        )
    expect(page.locator("#diagram .d-current")).to_contain_text("fleet")
    expect(page.locator("#said")).to_have_text("Now in fleet.")


def test_page_shows_a_pause_by_another_client(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("operator")
    wait_until_watching(page, name)
    client.ask("POST", f"/charts/{name}/pause", '{"reason": "by another"}', Content_Type="application/json")
    expect(page.locator("#now")).to_contain_text("by another", timeout=2000)
    expect(page.get_by_role("button", name="Resume…")).to_be_visible()


def test_refresh_keeps_a_dialog_that_is_half_filled_in(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("operator")
    wait_until_watching(page, name)
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("dialog").get_by_label("Reason").fill("half a sent")
    client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m1")
    expect(page.locator("#numbers .big").first).to_contain_text("1 of 5")
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_have_value("half a sent")
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_be_focused()


def test_list_of_charts_shows_a_new_chart(open_page: Open, client: Client) -> None:
    page = open_page("reader")
    name = new_chart(client)
    expect(page.get_by_role("link", name=name)).to_be_visible(timeout=10_000)


@pytest.mark.parametrize("path", ["/", "/ui/charts/lonely"])
def test_page_says_when_it_has_lost_the_server_and_when_it_is_back(
    chromium: Browser, sqlite_url: str, tmp_path: Path, path: str
) -> None:
    port = free_port()
    settings = {"auth": "open", "bind": f"127.0.0.1:{port}"}
    with context_of(chromium, base_url=f"http://127.0.0.1:{port}") as context:
        page = context.new_page()
        with running(sqlite_url, tmp_path, **settings) as server:
            server.import_chart("lonely", "current_state: a\nstates: [{name: a}]\n")
            page.goto(path)
            page.wait_for_timeout(500)
        expect(page.locator("#lost")).to_contain_text("No answer from the server since", timeout=15_000)
        with running(sqlite_url, tmp_path, **settings):
            expect(page.locator("#lost")).to_be_hidden(timeout=30_000)
            expect(page.locator("#said")).to_have_text("The server answers again.")


def test_act_is_not_sent_to_a_server_that_is_away(chromium: Browser, sqlite_url: str, tmp_path: Path) -> None:
    port = free_port()
    with context_of(chromium, base_url=f"http://127.0.0.1:{port}") as context:
        page = context.new_page()
        with running(sqlite_url, tmp_path, auth="open", bind=f"127.0.0.1:{port}") as server:
            server.import_chart("lonely", "current_state: a\nstates: [{name: a}]\n")
            page.goto("/ui/charts/lonely")
            page.get_by_role("button", name="Reset…").click()
            page.get_by_role("dialog").get_by_label("Reason").fill("half a sentence")
        expect(page.locator("#lost")).to_contain_text("No answer", timeout=15_000)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Not sent. No answer from the server")
        expect(page.get_by_role("dialog").get_by_label("Reason")).to_have_value("half a sentence")


def test_page_says_when_the_session_is_over(open_page: Open, client: Client) -> None:
    page = open_page("reader", f"/ui/charts/{new_chart(client)}")
    page.context.clear_cookies()
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_page_says_when_the_chart_is_archived(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("reader")
    wait_until_watching(page, name)
    client.ask("POST", f"/charts/{name}/archive", '{"reason": "over"}', Content_Type="application/json")
    expect(page.locator("#lost")).to_contain_text("This chart was archived.")
