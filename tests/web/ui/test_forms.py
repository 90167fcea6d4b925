"""The server accepts a form only if one of its own pages sent it."""

from __future__ import annotations

import pytest
from flask import Flask

from app.service.reading import get_status
from app.wiring import service_of
from tests.web.ui.browser import ORIGIN, Browser, make_token

PAGE = "/ui/charts/rollout"
PAUSE = f"{PAGE}/pause"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: the subject is what a browser sent."""
    return sqlite_url


def is_paused(app: Flask) -> bool:
    return get_status(service_of(app), "rollout").paused


def test_form_of_our_page_is_accepted(app: Flask, browser: Browser) -> None:
    assert browser.post(PAUSE, {"reason": "why not"}, page=PAGE).status_code == 303
    assert is_paused(app)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://localhost:81"]
)
def test_form_of_another_site_is_refused(app: Flask, browser: Browser, origin: str) -> None:
    assert browser.post(PAUSE, {"reason": "x"}, page=PAGE, origin=origin).status_code == 403
    assert not is_paused(app)


def test_form_without_origin_and_referer_is_refused(app: Flask, browser: Browser) -> None:
    assert browser.post(PAUSE, {"reason": "x"}, page=PAGE, origin=None).status_code == 403
    assert not is_paused(app)


def test_referer_is_enough_without_an_origin(app: Flask, browser: Browser) -> None:
    data = {"form_token": browser.find_form_token(PAGE), "reason": "x"}
    response = browser.client.post(PAUSE, data=data, headers={"Referer": f"{ORIGIN}{PAGE}"})
    assert response.status_code == 303
    assert is_paused(app)


@pytest.mark.parametrize("form_token", ["", "x", "x" * 43, "é"])
def test_form_with_another_token_is_refused(app: Flask, browser: Browser, form_token: str) -> None:
    browser.get(PAGE)
    assert browser.post(PAUSE, {"reason": "x"}, page=PAGE, form_token=form_token).status_code == 403
    assert not is_paused(app)


def test_form_without_the_cookie_is_refused(app: Flask, browser: Browser) -> None:
    token = browser.find_form_token(PAGE)
    assert Browser(app).post(PAUSE, {"reason": "x"}, form_token=token).status_code == 403
    assert not is_paused(app)


def test_every_route_that_takes_a_form_checks_it(guarded: Flask) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, "admin"))
    paths = {rule.rule for rule in guarded.url_map.iter_rules() if rule.endpoint.startswith("ui.post_")}
    assert len(paths) >= 6
    for path in paths:
        sent = path.replace("<chart:name>", "rollout").replace("<act>", "pause")
        assert browser.client.post(sent, data={"reason": "x"}).status_code == 403, sent
