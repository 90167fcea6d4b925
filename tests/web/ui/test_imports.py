"""Importing by hand: the page shows problems at their lines or what the import would do, and then imports."""

from __future__ import annotations

from flask import Flask

from app.service.reading import get_status, get_version
from app.wiring import service_of
from tests.diagram.support import ROLLOUT
from tests.web.ui.browser import Browser, file_of, make_token, words_of

SMALL = "current_state: a\nstates:\n  - {name: a, func: increment, current: {key: k, value: 0}, target: {name: b, when: {key: k, value: 1}}}\n  - name: b\n"  # noqa: E501  one line of a file


def test_problems_are_marked_at_their_lines(browser: Browser) -> None:
    page = browser.post("/ui/import", {"text": SMALL.replace("increment", "incremet"), "name": "small"}).text
    marked = page.split('class="is-bad"')[1].split("</tr>")[0]
    assert '<td class="ln">3</td>' in marked
    assert "unknown func" in marked
    assert "1 problem: nothing was changed" in words_of(page)


def test_every_problem_of_a_long_file_is_shown_with_lines_around_it(browser: Browser) -> None:
    text = "".join(f"# {number}\n" for number in range(500)) + SMALL + "\nnonsense: 1\n"
    page = browser.post("/ui/import", {"text": text, "name": "long"}).text
    assert '<td class="ln">506</td>' in page
    assert '<td class="ln">400</td>' not in page


def test_dry_run_shows_the_change_and_changes_nothing(app: Flask, browser: Browser) -> None:
    changed = ROLLOUT.replace("value: 5}", "value: 7}")
    page = browser.post("/ui/import", {"text": changed}).text
    assert "Version 2 of rollout" in page
    assert "diff-added" in page
    assert "diff-removed" in page
    assert get_status(service_of(app), "rollout").version == 1


def test_apply_imports_what_was_shown(app: Flask, browser: Browser) -> None:
    changed = ROLLOUT.replace("value: 5}", "value: 7}")
    response = browser.post("/ui/import", {"text": changed.replace("\n", "\r\n"), "apply": "1"})
    assert response.location == "/ui/charts/rollout?done=upgraded"
    assert get_version(service_of(app), "rollout", 2).text == changed


def test_file_is_imported_under_its_stem(app: Flask, browser: Browser) -> None:
    page = browser.post("/ui/import", {"file": file_of(SMALL, "folder/from-file.yaml")})
    assert "A new chart: from-file" in page.text
    fields = {"text": SMALL, "default_name": "from-file", "apply": "1"}
    assert browser.post("/ui/import", fields).location == "/ui/charts/from-file?done=created"


def test_unchanged_text_needs_no_import(browser: Browser) -> None:
    page = browser.post("/ui/import", {"text": ROLLOUT}).text
    assert "This version runs already" in page
    assert "Import it now" not in page


def test_conflict_is_shown_on_the_form(browser: Browser) -> None:
    page = browser.post("/ui/import", {"text": SMALL, "name": "rollout"}).text
    assert 'class="problem"' in page
    assert "canary" in page


def test_map_moves_the_chart_to_the_new_state(app: Flask, browser: Browser) -> None:
    fields = {"text": SMALL, "name": "rollout", "maps": "canary:a\n", "apply": "1"}
    assert browser.post("/ui/import", fields).status_code == 303
    assert get_status(service_of(app), "rollout").current_state == "a"


def test_file_that_is_not_utf8_is_a_problem_and_no_error(browser: Browser) -> None:
    response = browser.post("/ui/import", {"text": "a: \x00\ud7ff", "name": "x"})
    assert response.status_code == 200
    assert "problem" in response.text


def test_file_of_a_mebibyte_is_read_and_a_larger_one_refused(browser: Browser) -> None:
    whole = SMALL + "#" * (1024 * 1024 - len(SMALL))
    assert "A new chart: whole" in browser.post("/ui/import", {"text": whole, "name": "whole"}).text
    assert "problem" in browser.post("/ui/import", {"text": whole + "##", "name": "whole"}).text
    assert browser.post("/ui/import", {"text": whole * 3}).status_code == 413


def test_form_of_a_chart_has_its_current_text(browser: Browser) -> None:
    assert "expect: 400" in browser.get("/ui/import?chart=rollout").text


def test_pattern_keeps_imports_to_its_charts(guarded: Flask) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, "admin", "few", "roll*"))
    assert browser.post("/ui/import", {"text": SMALL, "name": "other", "apply": "1"}).status_code == 403
    assert browser.post("/ui/import", {"text": SMALL, "name": "rolling", "apply": "1"}).status_code == 303


def test_version_page_shows_what_it_changed(browser: Browser) -> None:
    browser.post("/ui/import", {"text": ROLLOUT.replace("value: 5}", "value: 7}"), "apply": "1"})
    page = browser.get("/ui/charts/rollout/versions/2").text
    assert "value: 7}" in page.split("diff-added")[1].split("</tr>")[0]
    assert browser.get("/ui/charts/rollout/versions/3").status_code == 404
