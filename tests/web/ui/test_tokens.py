"""The page that lists, creates and revokes tokens."""

from __future__ import annotations

import re

from flask import Flask

from app.service.tokens import list_tokens
from app.wiring import service_of
from tests.web.ui.browser import Browser, make_token


def test_new_token_is_shown_once_and_works(guarded: Flask, admin: Browser) -> None:
    page = admin.post("/ui/tokens", {"name": "chef", "role": "machine", "pattern": "roll*"})
    secret = re.search(r"sst_[A-Za-z0-9_-]{43}", page.text)
    assert secret is not None
    assert page.headers["Cache-Control"] == "no-store"
    assert secret.group() not in admin.get("/ui/tokens").text
    headers = {"Authorization": f"Bearer {secret.group()}"}
    assert guarded.test_client().get("/charts/rollout", headers=headers).status_code == 200


def test_revoked_token_stays_in_the_list(guarded: Flask, admin: Browser) -> None:
    make_token(guarded, "reader")
    assert admin.post("/ui/tokens/revoke", {"name": "reader"}, page="/ui/tokens").status_code == 303
    row = next(row for row in list_tokens(service_of(guarded)) if row.name == "reader")
    assert row.revoked_at is not None
    assert "revoked" in admin.text("/ui/tokens")


def test_refusal_is_shown_on_the_form_for_tokens(admin: Browser) -> None:
    for fields in (
        {"name": "a b", "role": "reader"},
        {"name": "admin", "role": "reader"},
        {"name": "x", "role": "king"},
    ):
        assert 'class="problem"' in admin.post("/ui/tokens", fields).text
    assert "no token named" in admin.post("/ui/tokens/revoke", {"name": "nobody"}, page="/ui/tokens").text


def test_operator_sees_no_tokens(guarded: Flask) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, "operator"))
    assert browser.get("/ui/tokens").status_code == 403
    assert "/ui/tokens" not in browser.get("/").text
