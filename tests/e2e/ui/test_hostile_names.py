"""Sixty names that try to run a script, in every place of the pages where a name can appear."""

from __future__ import annotations

import json
import uuid
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.ui.charts import YAML, new_chart, rollout
from tests.e2e.ui.conftest import Client, Open
from tests.e2e.ui.hostile import HOSTILE, NAMED


def assert_nothing_ran(page: Page) -> None:
    page.wait_for_timeout(100)
    assert page.evaluate("window.broken") is None
    assert (
        page.evaluate("document.querySelectorAll('iframe, object, embed, base, marquee, template, main style').length")
        == 0
    )
    assert page.evaluate("[...document.scripts].every(script => script.src.endsWith('/static/app.js'))")
    assert page.url.startswith("http://127.0.0.1:")


def test_corpus_has_sixty_names() -> None:
    assert len(set(HOSTILE)) == 60


def test_hostile_machines_and_reasons_do_not_run(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(needed=100, description=HOSTILE[0]).replace("expect: 20", "expect: 200"))
    for hostile in HOSTILE:
        client.ask("PUT", f"/charts/{name}/state?state=canary&machine={quote(hostile)}")
        reason = json.dumps({"reason": hostile})
        client.ask("POST", f"/charts/{name}/pause", reason, Content_Type="application/json")
        client.ask("POST", f"/charts/{name}/resume", reason, Content_Type="application/json")
    page = open_page("admin", f"/ui/charts/{name}")
    seen = ""
    for number in range(1, 4):
        page.goto(f"/ui/charts/{name}?page={number}")
        assert_nothing_ran(page)
        seen += page.locator("#machine-list").inner_text()
    for hostile in HOSTILE:
        assert hostile in seen
    page.goto(f"/ui/charts/{name}?kind=pause")
    while True:
        assert_nothing_ran(page)
        older = page.locator("#history-list").get_by_role("link", name="Older")
        if not older.count():
            break
        page.goto(str(older.get_attribute("href")))
    for path in (f"/charts/{name}/diagram", f"/charts/{name}/diagram?theme=dark"):
        page.goto(path)
        assert page.evaluate("window.broken") is None


def test_hostile_descriptions_do_not_run(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("admin")
    for hostile in HOSTILE:
        client.ask("PUT", f"/charts/{name}", rollout(description=hostile), **YAML)
        page.goto(f"/ui/charts/{name}")
        expect(page.locator(".lead")).to_have_text(hostile)
        assert_nothing_ran(page)
    page.goto(f"/?q={name}")
    assert_nothing_ran(page)
    page.goto(f"/ui/charts/{name}/versions/{len(HOSTILE) + 1}")
    assert_nothing_ran(page)
    page.goto(f"/ui/import?chart={name}")
    assert_nothing_ran(page)


def test_hostile_searches_do_not_run(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("reader")
    for hostile in HOSTILE:
        page.goto(f"/?q={quote(hostile)}")
        expect(page.get_by_label("Search charts")).to_have_value(hostile)
        assert_nothing_ran(page)
        page.goto(f"/ui/charts/{name}?machine={quote(hostile)}&by={quote(hostile)}")
        expect(page.get_by_label("Search machines")).to_have_value(hostile)
        assert_nothing_ran(page)


def test_hostile_fields_do_not_run(open_page: Open, client: Client) -> None:
    page = open_page("admin", "/ui/import")
    page.get_by_label("Chart file (YAML)").fill("\n".join(HOSTILE))
    page.get_by_role("button", name="Check").click()
    expect(page.locator("tr.is-bad").first).to_be_visible()
    assert_nothing_ran(page)
    for hostile in HOSTILE[::6]:
        page.goto("/ui/tokens")
        page.get_by_label("Name").fill(hostile)
        page.get_by_label("Charts", exact=True).fill(hostile)
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("alert")).to_contain_text("token name")
        assert_nothing_ran(page)
        page.goto("/ui/import")
        page.get_by_label("Chart file (YAML)").fill(f"current_state: {json.dumps(hostile)}\nstates: [{{name: a}}]")
        page.get_by_role("button", name="Check").click()
        expect(page.locator("tr.is-bad").first).to_be_visible()
        assert_nothing_ran(page)


@pytest.mark.parametrize("hostile", NAMED)
def test_strange_names_of_states_and_keys_are_shown(open_page: Open, client: Client, hostile: str) -> None:
    chart = f"x:-_.{uuid.uuid4().hex[:8]}"
    name = json.dumps(hostile)
    text = (
        f"current_state: {name}\nstates:\n  - name: {name}\n    func: increment\n"
        f"    current: {{key: {name}, value: 0}}\n"
        f"    target: {{name: z, when: {{key: {name}, value: 2}}}}\n  - name: z\n"
    )
    client.ask("PUT", f"/charts/{chart}", text, **YAML)
    client.ask("PUT", f"/charts/{chart}/state?state={quote(hostile)}&machine=m")
    page = open_page("admin", f"/ui/charts/{chart}")
    expect(page.locator("#now strong")).to_have_text(" ".join(hostile.split()))
    expect(page.locator("#diagram .d-current .d-name")).to_have_text(" ".join(hostile.split()))
    assert_nothing_ran(page)
