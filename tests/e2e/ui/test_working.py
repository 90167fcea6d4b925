"""Importing charts and acting on them, as people do it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.ui.charts import new_chart, rollout
from tests.e2e.ui.conftest import Client, Open


def act(page: Page, button: str, reason: str) -> None:
    """Press a button of the chart's page and give the reason that its dialog requires."""
    page.get_by_role("button", name=f"{button}…", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button, exact=True).click()


def test_import_marks_a_mistake_and_imports_the_corrected_text(open_page: Open) -> None:
    name = f"made-{uuid.uuid4().hex[:8]}"
    page = open_page("admin", "/ui/import")
    page.get_by_label("Chart file (YAML)").fill(rollout().replace("func: increment", "func: incremet", 1))
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Check").click()
    problem = page.locator("tr.is-bad")
    expect(problem).to_have_count(1)
    expect(problem).to_contain_text("func: incremet")
    expect(problem).to_contain_text("did you mean 'increment'")
    page.get_by_label("Chart file (YAML)").fill(rollout())
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name=f"A new chart: {name}")).to_be_visible()
    page.get_by_role("button", name="Import it now").click()
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    expect(page.get_by_text("Imported: a new chart.")).to_be_visible()


def test_upgrade_from_a_file_shows_what_it_changes(open_page: Open, client: Client, tmp_path: Path) -> None:
    name = new_chart(client)
    file = tmp_path / f"{name}.yaml"
    file.write_text(rollout(needed=7))
    page = open_page("admin", "/ui/import")
    page.get_by_label("Or a file").set_input_files(file)
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name=f"Version 2 of {name}")).to_be_visible()
    expect(page.locator(".diff-added")).to_contain_text("value: 7")
    expect(page.locator(".diff-removed")).to_contain_text("value: 5")
    page.get_by_role("button", name="Import it now").click()
    expect(page.get_by_text("Imported: a new version runs.")).to_be_visible()
    page.get_by_role("link", name="Version 2").click()
    expect(page.locator(".diff-added")).to_contain_text("value: 7")


def test_pause_with_a_reason_and_resume(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("operator", f"/ui/charts/{name}")
    act(page, "Pause", "the database is busy")
    expect(page.locator("#now")).to_contain_text("paused by operator")
    expect(page.locator("#now")).to_contain_text("the database is busy")
    assert client.ask("GET", f"/charts/{name}/state?state=canary") == 406
    act(page, "Resume", "the database is idle")
    expect(page.locator("#now")).to_contain_text("waits for")
    assert client.ask("GET", f"/charts/{name}/state?state=canary") == 200
    expect(page.locator("#history-list")).to_contain_text("the database is idle")


def test_act_requires_a_reason(open_page: Open, client: Client) -> None:
    page = open_page("operator", f"/ui/charts/{new_chart(client)}")
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#now")).to_contain_text("waits for")


def test_goto_reset_and_archive(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("admin", f"/ui/charts/{name}")
    page.get_by_role("button", name="Go to…").click()
    page.get_by_label("State", exact=True).select_option("fleet")
    page.get_by_role("dialog").get_by_label("Reason").fill("the canaries were done by hand")
    page.get_by_role("dialog").get_by_role("button", name="Go to", exact=True).click()
    expect(page.locator("#now strong")).to_have_text("fleet")
    act(page, "Reset", "once more")
    expect(page.get_by_role("heading", name="Visits of run 2")).to_be_visible()
    act(page, "Archive", "it is over")
    expect(page.get_by_role("heading", name="Charts", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=name)).to_have_count(0)


def test_dialog_holds_the_keyboard_and_gives_it_back(open_page: Open, client: Client) -> None:
    page = open_page("operator", f"/ui/charts/{new_chart(client)}")
    page.get_by_role("button", name="Go to…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("State", exact=True)).to_be_focused()
    expect(dialog.get_by_label("State", exact=True)).to_have_value("")
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Go to…")).to_be_focused()


def test_act_that_came_too_late_is_refused_with_what_was_typed(
    open_page: Open, client: Client, complaints: list[str]
) -> None:
    name = new_chart(client)
    page = open_page("operator", f"/ui/charts/{name}")
    page.get_by_role("button", name="Pause…").click()
    client.ask("POST", f"/charts/{name}/pause", '{"reason": "first"}', Content_Type="application/json")
    page.get_by_role("dialog").get_by_label("Reason").fill("the second one")
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="You had typed: the second one")).to_be_visible()
    # The browser notes the page's status.
    assert ["409" in text for text in complaints] == [True]
    complaints.clear()


def test_keyboard_alone_is_enough(open_page: Open, client: Client) -> None:
    page = open_page("operator", f"/ui/charts/{new_chart(client)}")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Pause…":
            break
    page.keyboard.press("Enter")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#now")).to_contain_text("by keyboard")


def test_search_filters_while_a_person_types(open_page: Open, client: Client) -> None:
    one, other = new_chart(client, prefix="needle"), new_chart(client, prefix="hay")
    page = open_page("reader")
    page.get_by_label("Search charts").fill(one)
    expect(page.get_by_role("link", name=one)).to_be_visible()
    expect(page.get_by_role("link", name=other)).to_be_hidden()
    page.get_by_label("Search charts").fill("no chart has this")
    expect(page.get_by_text("No chart on this page has these words")).to_be_visible()


def test_machines_are_searched_in_place(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(needed=15))
    for number in range(6):
        client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m-{number}")
    client.ask("PUT", f"/charts/{name}/state?state=canary&machine=m-9&key=failed")
    page = open_page("reader", f"/ui/charts/{name}")
    machines = page.locator("#machines")
    machines.get_by_role("link", name="Failed").click()
    expect(machines.locator("tbody tr")).to_have_count(1)
    machines.get_by_role("link", name="Reported").click()
    machines.get_by_label("Search machines").fill("m-3")
    page.keyboard.press("Enter")
    expect(machines.locator("tbody tr")).to_have_count(1)
    assert "machine=m-3" in page.url
    page.locator("#history select").select_option("import")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#history-list tbody tr")).to_have_count(1)
    assert "machine=m-3" in page.url


@pytest.mark.parametrize("title", ["curl", "Chef", "Ansible"])
def test_snippet_is_copied(open_page: Open, client: Client, title: str) -> None:
    name = new_chart(client)
    page = open_page("reader", f"/ui/charts/{name}", permissions=["clipboard-read", "clipboard-write"])
    snippet = page.locator(".snippet").filter(has=page.get_by_role("heading", name=title))
    snippet.evaluate("details => { details.open = true; }")
    snippet.get_by_role("button", name="Copy").click()
    expect(snippet.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"/charts/{name}/" in copied
    assert copied == snippet.locator("pre").text_content()
