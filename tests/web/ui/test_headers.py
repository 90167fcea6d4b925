"""What every page forbids the browser, and what no page may contain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from app.web.auth import RULES
from tests.web.ui.browser import Browser

PAGES = [
    "/",
    "/ui/charts/rollout",
    "/ui/import",
    "/ui/import?chart=rollout",
    "/ui/tokens",
    "/ui/rosters",
    "/ui/subscriptions",
    "/ui/charts/rollout/versions/1",
    "/ui/x",
]
TEMPLATES = Path(__file__).parents[3] / "app" / "templates"
STATIC = Path(__file__).parents[3] / "app" / "static"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: the subject is what a page looks like."""
    return sqlite_url


@pytest.mark.parametrize("page", PAGES)
def test_page_has_the_headers(browser: Browser, page: str) -> None:
    headers = browser.get(page).headers
    assert "default-src 'self';" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("page", PAGES)
def test_page_has_nothing_inline_and_loads_nothing_from_elsewhere(browser: Browser, page: str) -> None:
    html = browser.get(page).text
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", html)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", html)


def test_templates_mark_no_text_as_safe() -> None:
    trusted = {path.name: path.read_text().count("| safe") for path in TEMPLATES.rglob("*.html")}
    # The sparkline is our own SVG.
    assert {name: count for name, count in trusted.items() if count} == {"index.html": 1}


def test_style_and_script_load_nothing_from_elsewhere() -> None:
    for path in STATIC.glob("app.*"):
        assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "")


def test_every_page_has_a_rule(guarded: Flask) -> None:
    endpoints = {rule.endpoint for rule in guarded.url_map.iter_rules()}
    assert {name for name in endpoints if name.startswith(("ui.", "charts.", "static"))} <= RULES.keys()


def test_static_files_need_no_token(guarded: Flask) -> None:
    with guarded.test_client().get("/static/app.css") as response:
        assert response.status_code == 200
