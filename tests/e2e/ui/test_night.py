"""What an operator asks at 3 a.m. is answered on the page, in the words that are looked for here."""

from __future__ import annotations

import json
import re
import uuid

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.ui.charts import new_chart, rollout
from tests.e2e.ui.conftest import Client, Open
from tests.support.servers import beside

WORDS = "exit 100\ngrub-probe: error: no device for /boot\nE: dpkg returned an error code (1)"
ROSTER = [f"web-{number}" for number in range(1, 9)]


def slotted(**more: str) -> str:
    """The rollout with a roster, and slots in its first state."""
    text = rollout(needed=7).replace("expect: 20", f"expect: [{', '.join(ROSTER)}]")
    keys = "".join(f"    {key}: {value}\n" for key, value in {"slots": "4", **more}.items())
    return text.replace("    func: increment\n", f"    func: increment\n{keys}", 1)


def report(client: Client, name: str, machine: str, key: str = "count", note: str | None = None) -> None:
    client.ask("PUT", f"/charts/{name}/state?state=canary&machine={machine}&key={key}", note)


def claim(client: Client, name: str, machine: str) -> None:
    client.ask("PUT", f"/charts/{name}/slot?state=canary&machine={machine}")


def act(client: Client, name: str, verb: str, **fields: str) -> None:
    client.ask(
        "POST", f"/charts/{name}/{verb}", json.dumps({"reason": "by a test", **fields}), Content_Type="application/json"
    )


@pytest.fixture
def aborted(client: Client) -> str:
    """A chart that three failures have rolled back, while web-8 was at work."""
    name = new_chart(client, slotted(), prefix="aborted")
    for machine in ("web-1", "web-2", "web-3", "web-4"):
        claim(client, name, machine)
        failed = machine != "web-2"
        if machine == "web-4":
            claim(client, name, "web-8")
        report(client, name, machine, "failed" if failed else "count", WORDS if failed else None)
    return name


@pytest.fixture
def night(open_page: Open, aborted: str) -> Page:
    """The page of that chart."""
    return open_page("reader", f"/ui/charts/{aborted}", permissions=["clipboard-read", "clipboard-write"])


def test_which_chart_needs_me(open_page: Open, client: Client, aborted: str) -> None:
    calm = new_chart(client, prefix=aborted)
    rows = open_page("reader", f"/?q={aborted}").locator(".chart")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("the 3rd failure, limit 3, from web-4 in canary; 4 of 8 had reported")
    expect(rows.last).to_contain_text(calm)


def test_has_it_aborted_why_and_since_when(night: Page) -> None:
    now = night.locator("#now")
    expect(now).to_contain_text("Failed")
    expect(now).to_contain_text("rolled_back is the end of run 1")
    expect(now).to_contain_text("The 3rd failure, limit 3, from web-4 in canary; 4 of 8 had reported (since ")


def test_which_machines_failed(night: Page) -> None:
    expect(night.locator(".trouble summary").first).to_have_text("3 failed in canary")
    night.get_by_role("button", name="Copy for ansible --limit").click()
    expect(night.get_by_role("button", name="Copied")).to_be_visible()
    assert night.evaluate("navigator.clipboard.readText()") == "web-1,web-3,web-4"


def test_why_did_they_fail(night: Page) -> None:
    note = night.locator(".failed-list li").first.locator("details")
    expect(note.locator("summary")).to_have_text(re.compile(r"exit 100 ⋯\s+E: dpkg returned an error code \(1\)"))
    note.locator("summary").click()
    expect(note.locator("pre")).to_have_text(WORDS)


def test_who_is_missing(night: Page) -> None:
    night.get_by_role("link", name="Missing 4").click()
    expect(night.locator(".absent li")).to_have_text(["web-5", "web-6", "web-7", "web-8"])


def test_who_holds_slots_since_when_and_whose_lease_ran_out(open_page: Open, client: Client) -> None:
    name = new_chart(client, slotted(lease="1s", on_expire="hold"))
    claim(client, name, "web-1")
    page = open_page("reader", f"/ui/charts/{name}")
    row = page.locator("#slots tbody tr")
    expect(row).to_contain_text("web-1")
    expect(row).to_contain_text(re.compile(r"now|\d+ s ago"))
    expect(row.locator(".bad")).to_contain_text("ran out", timeout=20_000)
    expect(page.locator("#now")).to_contain_text("The lease of web-1 ran out", timeout=20_000)


def test_who_was_at_work_when_it_moved_on(night: Page) -> None:
    summary = night.get_by_text("1 was at work when it moved on")
    summary.click()
    expect(night.locator(".trouble details").last.locator("li")).to_contain_text("web-8 claimed")


def test_who_was_at_work_when_it_moved_on_as_planned(open_page: Open, client: Client) -> None:
    name = new_chart(client, slotted().replace("value: 7", "value: 2"))
    for machine in ("web-1", "web-2", "web-3"):
        claim(client, name, machine)
    for machine in ("web-1", "web-2"):
        report(client, name, machine)
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#now strong")).to_have_text("fleet")
    page.locator("#visits").get_by_role("link", name="canary").click()
    page.get_by_role("link", name="At work when it moved on 1").click()
    expect(page.locator("#machine-list tbody tr")).to_have_count(1, timeout=20_000)
    expect(page.locator("#machine-list tbody tr")).to_contain_text("web-3")


def test_who_is_at_work_where_there_are_no_slots(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout().replace("expect: 20", f"expect: [{', '.join(ROSTER)}]"))
    client.ask("GET", f"/charts/{name}/state?state=canary&machine=web-1")
    report(client, name, "web-2")
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#unseen-work")).to_contain_text(
        "Which machines are at work in canary is not known, because the state has no slots"
    )
    expect(page.locator("#machine-list tbody tr")).to_contain_text("web-2")
    page.get_by_role("link", name="Missing 7").click()
    expect(page.locator(".absent li")).to_have_text([machine for machine in ROSTER if machine != "web-2"])


def test_how_fast_is_it_and_when_will_it_be_done(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(needed=40).replace("expect: 20", "expect: 60"))
    for number in range(20):
        report(client, name, f"m{number}")
    growth = open_page("reader", f"/ui/charts/{name}").locator("#growth")
    expect(growth).to_contain_text(
        re.compile(r"20 of 40 on count, 0 of 3 failed\. At [\d,.]+ an hour it is done (in|now)")
    )
    expect(growth.locator(".p-aim")).to_have_count(2)
    expect(growth.locator("text.p-limit")).to_have_text(["fleet at 40", "rolled_back at 3"])


def test_what_has_changed_since_i_looked(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#looked")).to_be_hidden()
    page.goto("/")
    act(client, name, "pause")
    act(client, name, "resume")
    page.goto(f"/ui/charts/{name}")
    page.locator("#looked").get_by_role("link", name="2 new rows since you looked").click()
    expect(page.locator("#history-list tbody .kind")).to_have_text(["resume", "pause"])


def test_who_paused_it_why_and_whom_do_i_call(open_page: Open, client: Client) -> None:
    name = new_chart(client, rollout(description="kernel 6.12; owner anna, https://wiki.example.org/kernel"))
    act(client, name, "pause", reason="the balancers are full")
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#now")).to_contain_text(re.compile(r"paused by admin (\d+ s )?ago: the balancers are full"))
    expect(page.locator(".lead a")).to_have_attribute("href", "https://wiki.example.org/kernel")


def test_what_happens_if_i_go_to_a_state(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    for machine in ROSTER[:4]:
        report(client, name, machine)
    page = open_page("operator", f"/ui/charts/{name}")
    page.get_by_role("button", name="Go to…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("State", exact=True)).to_have_value("")
    dialog.get_by_label("State", exact=True).select_option("fleet")
    expect(dialog.locator(".loss")).to_contain_text("4 on count in canary is lost")
    expect(dialog.locator(".loss")).to_contain_text("Then it is in fleet, run 1")


def test_what_happens_if_i_resume(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    act(client, name, "pause")
    for machine in ROSTER[:3]:
        report(client, name, machine, "failed")
    page = open_page("operator", f"/ui/charts/{name}")
    page.get_by_role("button", name="Resume…").click()
    expect(page.get_by_role("dialog").locator(".loss")).to_contain_text("Then it is in rolled_back, run 1")


def test_how_was_the_last_run(open_page: Open, client: Client, aborted: str) -> None:
    act(client, aborted, "reset")
    page = open_page("reader", f"/ui/charts/{aborted}")
    page.get_by_role("link", name="All runs side by side").click()
    expect(page.get_by_role("row", name="ending")).to_contain_text("rolled_back")
    expect(page.get_by_role("row", name="failures")).to_contain_text("3")
    expect(page.get_by_role("row", name="took")).to_contain_text(" s")
    expect(page.locator(".compared")).to_contain_text(
        re.compile(r"Run 2 now: .* run 1, which had no failure at this point; this run has none|neither had a failure")
    )


def test_is_a_machine_done_everywhere(open_page: Open, client: Client) -> None:
    machine = f"web-{uuid.uuid4().hex[:8]}"
    done, failed = new_chart(client, prefix="one"), new_chart(client, prefix="two")
    report(client, done, machine)
    report(client, failed, machine, "failed", WORDS)
    page = open_page("reader")
    page.get_by_label("Search charts").fill(machine)
    page.keyboard.press("Enter")
    page.get_by_role("link", name=f"The machine {machine}").click()
    expect(page.locator("#machine section", has_text=done)).to_contain_text("count")
    expect(page.locator("#machine section", has_text=failed)).to_contain_text("E: dpkg returned an error code (1)")


def test_which_version_runs_and_what_did_it_change(open_page: Open, client: Client) -> None:
    name = new_chart(client)
    client.ask("PUT", f"/charts/{name}", rollout(needed=7), Content_Type="application/yaml")
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#versions li").first).to_contain_text("runs")
    page.get_by_role("link", name="Version 2").click()
    expect(page.locator(".diff-added")).to_contain_text("value: 7")


def test_is_the_service_itself_well(open_page: Open) -> None:
    expect(open_page("reader").locator("footer")).to_contain_text("The service is ready")


def test_was_somebody_told(open_page: Open, client: Client, ui_database_url: str) -> None:
    name = new_chart(client, prefix="told")
    page = open_page("reader", f"/ui/charts/{name}")
    expect(page.locator("#now")).to_contain_text("No receiver is told of this chart")
    with beside(ui_database_url) as connection:
        for number, (receiver, error) in enumerate((("pager", None), ("chat", "503 Service Unavailable"))):
            connection.exec_driver_sql(
                "INSERT INTO subscriptions (name, url, secret, charts, kinds, format, created_at, updated_at)"
                f" VALUES (?, 'https://hooks.example.org', 'x', '[\"{name}\"]', '[\"pause\"]', 'event', ?, ?)",
                (f"{receiver}-{name}", "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z"),
            )
            connection.exec_driver_sql(
                "INSERT INTO deliveries (subscription_id, webhook_id, chart, seq, kind, at, attempt, error)"
                " SELECT max(id), ?, ?, 1, 'pause', '2026-01-01T00:00:00.000000Z', 1, ? FROM subscriptions",
                (f"{name}/{number}", name, error),
            )
    page.reload()
    told = page.locator(".now-told")
    expect(told).to_contain_text(f"pager-{name} of the pause")
    expect(told).to_contain_text(f"chat-{name} could not be told of the pause")
    expect(told).to_contain_text("503 Service Unavailable")
