"""Signing in and out, and what each role sees."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.ui.charts import new_chart
from tests.e2e.ui.conftest import Client, Open, context_of, listen
from tests.support.servers import Server


def test_login_returns_to_the_requested_page(
    chromium: Browser, server: Server, tokens: dict[str, str], client: Client, complaints: list[str]
) -> None:
    name = new_chart(client)
    with context_of(chromium, base_url=server.url) as context:
        page = context.new_page()
        listen(page, complaints)
        page.goto(f"/ui/charts/{name}")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.get_by_label("Token").fill("sst_nonsense")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
        page.get_by_label("Token").fill(tokens["reader"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        assert tokens["reader"] not in page.url
        assert page.evaluate("document.cookie") == ""


@pytest.mark.parametrize(
    ("role", "buttons"),
    [("reader", []), ("operator", ["Pause", "Go to", "Reset"]), ("admin", ["Pause", "Go to", "Reset", "Archive"])],
)
def test_role_sees_its_buttons(open_page: Open, client: Client, role: str, buttons: list[str]) -> None:
    page = open_page(role, f"/ui/charts/{new_chart(client)}")
    found = page.locator("#acts > button").all_inner_texts()
    assert [text.rstrip("…") for text in found] == buttons


def test_sign_out_ends_the_session(open_page: Open) -> None:
    page = open_page("operator")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/ui/login"))
    page.goto("/")
    expect(page).to_have_url(re.compile("/ui/login"))


def test_token_is_created_shown_once_used_and_revoked(
    open_page: Open, chromium: Browser, server: Server, complaints: list[str]
) -> None:
    page = open_page("admin", "/ui/tokens")
    page.get_by_label("Name").fill("jo")
    page.get_by_label("Role").select_option("operator")
    page.get_by_role("button", name="Create").click()
    secret = page.locator("#secret").inner_text()
    page.goto("/ui/tokens")
    assert secret not in page.content()
    with context_of(chromium, base_url=server.url) as context:
        other = context.new_page()
        listen(other, complaints)
        other.goto("/ui/login")
        other.get_by_label("Token").fill(secret)
        other.keyboard.press("Enter")
        expect(other.get_by_text("jo operator")).to_be_visible()
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="jo", exact=True))
        row.get_by_role("button", name="Revoke…").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
        expect(page.get_by_text("Revoked.")).to_be_visible()
        other.wait_for_timeout(1000)
        other.goto("/")
        expect(other).to_have_url(re.compile("/ui/login"))
