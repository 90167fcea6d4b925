"""The pages that list, make, change, test and delete subscriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from app.service import subscriptions
from app.service.webhooks import AllowedHosts
from app.wiring import service_of
from tests.support.receiver import Receiver, receiver
from tests.web.ui.browser import Browser, make_token

LIST = "/ui/subscriptions"


@pytest.fixture
def hook(guarded: Flask) -> Iterator[Receiver]:
    service_of(guarded).webhook_hosts = AllowedHosts(["127.0.0.1"])
    with receiver() as found:
        yield found


@pytest.fixture
def made(admin: Browser, hook: Receiver) -> str:
    """The page after the subscription `pager` was made."""
    return admin.post(LIST, {"name": "pager", "url": hook.url, "charts": "roll* web", "kinds": ""}).text


def test_secret_of_a_new_subscription_is_shown_once(admin: Browser, made: str) -> None:
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", made)

    assert secret is not None
    assert "pager was made." in made
    assert secret.group() not in admin.get(LIST).text
    assert secret.group() not in admin.get(f"{LIST}/pager").text


def test_form_makes_what_it_says_and_changes_it(guarded: Flask, admin: Browser, hook: Receiver, made: str) -> None:
    (first,) = subscriptions.list_subscriptions(service_of(guarded))
    fields = {"name": "pager", "url": hook.url, "charts": "*", "kinds": "pause, condition:failed", "format": "text"}
    page = admin.post(LIST, fields)

    (changed,) = subscriptions.list_subscriptions(service_of(guarded))

    assert (first.charts, first.kinds, first.format) == (("roll*", "web"), subscriptions.DEFAULT_KINDS, "event")
    assert (changed.charts, changed.kinds, changed.format) == (("*",), ("pause", "condition:failed"), "text")
    assert changed.secret == first.secret
    assert "pager was changed." in page.text
    assert "whsec_" not in page.text
    assert 'value="pause condition:failed"' in admin.get(f"{LIST}/pager").text


def test_button_sends_a_test_and_says_what_came_of_it(admin: Browser, hook: Receiver, made: str) -> None:
    page = f"{LIST}/pager"
    delivered = admin.post(f"{page}/test", {}, page=page).text
    hook.answer = lambda received: 503
    failed = admin.post(f"{page}/test", {}, page=page).text

    assert "The test was delivered: the receiver answered 204." in delivered
    assert "The test was not delivered: the receiver answered 503." in failed
    assert hook.received[0].json()["type"] == "test"
    text = admin.text(page)
    assert text.index("the receiver answered 503") < text.index("delivered")


def test_deleted_subscription_is_gone(admin: Browser, made: str) -> None:
    done = admin.post(f"{LIST}/pager/delete", {}, page=f"{LIST}/pager")

    assert (done.status_code, done.location) == (303, f"{LIST}?done=delete")
    assert "There are no subscriptions yet" in admin.text(done.location)
    assert admin.get(f"{LIST}/pager").status_code == 404
    assert "no subscription named" in admin.post(f"{LIST}/pager/delete", {}, page=LIST).text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "a b", "url": "http://127.0.0.1/"}, "subscription name"),
        ({"name": "x", "url": "http://10.0.0.1/"}, "STATE_SERVICE_WEBHOOK_HOSTS"),
        ({"name": "x", "url": "http://127.0.0.1/", "kinds": "updates"}, "updates"),
        ({"name": "x"}, "url is missing"),
        ({"url": "http://127.0.0.1/"}, "name is missing"),
    ],
)
def test_refusal_is_shown_on_the_form(admin: Browser, hook: Receiver, fields: dict[str, object], problem: str) -> None:
    page = admin.post(LIST, fields).text

    assert re.search(rf'class="problem"[^<]*{problem}', page)
    assert "There are no subscriptions yet" in page


@pytest.mark.parametrize(("role", "pattern"), [("operator", "*"), ("admin", "roll*")])
def test_only_an_admin_of_all_charts_sees_subscriptions(guarded: Flask, made: str, role: str, pattern: str) -> None:
    browser = Browser(guarded).signed_in(make_token(guarded, role, name="other", pattern=pattern))

    assert [browser.get(page).status_code for page in (LIST, f"{LIST}/pager", f"{LIST}/none")] == [403] * 3
    assert browser.post(f"{LIST}/pager/test", {}, page="/ui/charts/rollout").status_code == 403
    assert LIST not in browser.get("/ui/charts/rollout").text


def test_chart_links_to_the_subscriptions_that_tell_of_it(admin: Browser, made: str) -> None:
    assert f'href="{LIST}/pager"' in admin.get("/ui/charts/rollout").text
