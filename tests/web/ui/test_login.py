"""Signing in with a token, what a session may do, and when it ends."""

from __future__ import annotations

import pytest
from flask import Flask

from app import schema
from app.core.log import Author
from app.db.engine import open_engine
from app.service.tokens import revoke_token
from app.wiring import service_of
from tests.service.support import Clock
from tests.support.apps import opened_app
from tests.web.ui.browser import ORIGIN, Browser, make_token
from tests.web.ui.conftest import KEY

PAGES = [
    "/",
    "/ui/rosters",
    "/ui/charts/rollout",
    "/ui/import",
    "/ui/tokens",
    "/ui/subscriptions",
    "/ui/subscriptions/pager",
    "/ui/charts/rollout/versions/1",
    "/ui/nothing",
]


@pytest.mark.parametrize("page", PAGES)
def test_page_sends_to_login_without_a_session(guarded: Flask, page: str) -> None:
    response = Browser(guarded).get(f"{page}?q=a")
    assert response.status_code == 303
    assert response.location.startswith("/ui/login?next=")


def test_login_redirects_to_the_requested_page(guarded: Flask) -> None:
    browser = Browser(guarded)
    response = browser.sign_in(make_token(guarded, "reader"), next="/ui/charts/rollout?is=failed")
    assert response.location == "/ui/charts/rollout?is=failed"
    assert browser.get(response.location).status_code == 200


@pytest.mark.parametrize(
    "next_page", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "\t/x"]
)
def test_login_redirects_only_within_the_service(guarded: Flask, next_page: str) -> None:
    assert Browser(guarded).sign_in(make_token(guarded, "reader"), next=next_page).location == "/"


@pytest.mark.parametrize("secret", ["", "sst_wrong", "sst_" + "x" * 43, "é"])
def test_wrong_token_begins_no_session(guarded: Flask, secret: str) -> None:
    browser = Browser(guarded)
    response = browser.sign_in(secret)
    assert "unknown or revoked" in response.text
    assert browser.get("/").status_code == 303


def test_session_cookie_is_hidden_from_scripts_and_other_sites(guarded: Flask) -> None:
    cookies = Browser(guarded).sign_in(make_token(guarded, "reader")).headers.getlist("Set-Cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("stateservice_session="))
    assert "HttpOnly" in session
    assert "SameSite=Lax" in session
    assert "Secure" not in session


TLS = {"base_url": "https://localhost"}


def test_cookies_are_bound_to_the_host_over_https(guarded: Flask) -> None:
    client = guarded.test_client()
    secret = make_token(guarded, "reader")
    page = client.get("/ui/login", **TLS)
    token = page.text.split('name="form_token" value="')[1].split('"')[0]
    headers = {"Origin": "https://localhost"}
    response = client.post("/ui/login", data={"form_token": token, "token": secret}, headers=headers, **TLS)
    assert response.status_code == 303
    cookies = page.headers.getlist("Set-Cookie") + response.headers.getlist("Set-Cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        assert cookie.startswith("__Host-stateservice_")
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
    assert client.get("/", **TLS).status_code == 200
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_cookie_of_another_host_is_not_read_over_https(guarded: Flask, admin: Browser) -> None:
    cookie = admin.client.get_cookie("stateservice_session")
    assert cookie is not None
    client = guarded.test_client()
    client.set_cookie("stateservice_session", cookie.value)
    assert client.get("/", **TLS).status_code == 303


def test_no_page_demands_tls_without_tls(guarded: Flask) -> None:
    assert "Strict-Transport-Security" not in guarded.test_client().get("/ui/login").headers


def test_secret_is_not_in_a_cookie_or_an_address(guarded: Flask) -> None:
    secret = make_token(guarded, "reader")
    response = Browser(guarded).sign_in(secret)
    assert secret not in str(response.headers)


def test_logout_ends_the_session(admin: Browser) -> None:
    assert admin.post("/ui/logout", {}, page="/").status_code == 303
    assert admin.get("/").status_code == 303


def copy_of(browser: Browser, app: Flask) -> Browser:
    """Another browser with the same cookie, as a thief has it."""
    cookie = browser.client.get_cookie("stateservice_session")
    assert cookie is not None
    other = Browser(app)
    other.client.set_cookie("stateservice_session", cookie.value)
    return other


def test_logout_ends_the_session_for_every_copy_of_its_cookie(guarded: Flask, admin: Browser) -> None:
    thief = copy_of(admin, guarded)
    assert thief.get("/").status_code == 200
    admin.post("/ui/logout", {}, page="/")
    assert thief.get("/").status_code == 303
    assert thief.get("/charts/rollout").status_code == 401


def test_session_ends_with_its_token(guarded: Flask, admin: Browser) -> None:
    assert admin.get("/").status_code == 200
    revoke_token(service_of(guarded), "admin", Author(actor="test"))
    assert admin.get("/").status_code == 303
    assert admin.get("/ui/charts/rollout/changes?after=1").status_code == 401


def test_session_ends_after_an_hour_without_a_page(guarded: Flask) -> None:
    clock = service_of(guarded).database.clock = Clock()
    browser = Browser(guarded).signed_in(make_token(guarded, "reader"))
    clock.advance(3500)
    assert browser.get("/").status_code == 200
    clock.advance(3500)
    # The script of an open page asks, and not the person.
    assert browser.get("/", **{"Sec-Fetch-Mode": "cors"}).status_code == 200
    clock.advance(101)
    assert browser.get("/").status_code == 303


def test_session_ends_after_half_a_day(guarded: Flask) -> None:
    clock = service_of(guarded).database.clock = Clock()
    browser = Browser(guarded).signed_in(make_token(guarded, "reader"))
    for _ in range(14):
        clock.advance(3000)
        assert browser.get("/").status_code == 200
    clock.advance(1200)
    assert browser.get("/").status_code == 303


def test_session_belongs_to_one_database(guarded: Flask, admin: Browser, sqlite_url: str) -> None:
    """The other database has a token of the same name, and the same key signs its sessions."""
    cookie = admin.client.get_cookie("stateservice_session")
    assert cookie is not None
    for other in opened_app(sqlite_url + ".other", auth="tokens", secret_key=KEY):
        schema.upgrade(open_engine(sqlite_url + ".other", create=True))
        make_token(other, "admin")
        browser = Browser(other)
        browser.client.set_cookie("stateservice_session", cookie.value)
        assert browser.get("/").status_code == 303


def test_token_of_the_role_enrol_cannot_sign_in(guarded: Flask) -> None:
    assert "not for the pages" in Browser(guarded).sign_in(make_token(guarded, "enrol")).text


@pytest.mark.parametrize("value", ["", "admin", "ImFkbWluIg.aaaa.bbbb", "x" * 3000])
def test_forged_session_is_ignored(guarded: Flask, value: str) -> None:
    make_token(guarded, "admin")
    browser = Browser(guarded)
    browser.client.set_cookie("stateservice_session", value)
    assert browser.get("/").status_code == 303


def test_session_signed_with_another_key_is_ignored(guarded: Flask, admin: Browser, database_url: str) -> None:
    cookie = admin.client.get_cookie("stateservice_session")
    assert cookie is not None
    for other in opened_app(database_url, auth="tokens", secret_key=KEY[::-1]):
        browser = Browser(other)
        browser.client.set_cookie("stateservice_session", cookie.value)
        assert browser.get("/").status_code == 303


def test_session_may_read_by_the_http_interface(admin: Browser) -> None:
    assert admin.get("/charts/rollout").status_code == 200
    assert admin.get("/charts/rollout/diagram").status_code == 200
    assert admin.get("/charts/rollout/history").status_code == 200


def test_session_may_not_change_by_the_http_interface(admin: Browser) -> None:
    headers = {"Origin": ORIGIN}
    assert admin.client.post("/charts/rollout/pause", json={"reason": "x"}, headers=headers).status_code == 401
    assert admin.client.put("/charts/rollout/state?state=canary&machine=m").status_code == 401
    assert admin.client.put("/charts/other", data="x", headers=headers).status_code == 401


def test_token_in_the_header_takes_precedence_over_the_session(guarded: Flask, admin: Browser) -> None:
    make_token(guarded, "reader")
    assert admin.get("/", Authorization="Bearer sst_wrong").status_code == 303


def test_login_without_a_key_names_the_setting(database_url: str) -> None:
    for app in opened_app(database_url, auth="tokens"):
        browser = Browser(app)
        response = browser.get("/ui/login")
        assert response.status_code == 503
        assert "STATE_SERVICE_SECRET_KEY" in response.text
        assert browser.sign_in(make_token(app, "reader")).status_code == 403


def test_open_service_needs_no_login(browser: Browser) -> None:
    assert browser.get("/ui/login").location == "/"
    assert "Sign out" not in browser.text("/")
