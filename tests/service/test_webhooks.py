"""Where webhooks may go, and how they are signed."""

from __future__ import annotations

import ipaddress
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from app.core.errors import BadRequestError, InvalidSubscriptionError
from app.service.webhooks import (
    AllowedHosts,
    Outcome,
    check_notification,
    is_public,
    notify,
    read_secret,
    read_target,
    send,
    sign,
)
from tests.support.receiver import receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# As one text: a list would take forty lines.
ADDRESSES = """
0.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
192.0.0.1 192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 :: ::1 fe80::1 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1:: 2001::1
100::1 fec0::1 ::7f00:1
"""


@pytest.mark.parametrize("text", ADDRESSES.split())
def test_address_that_is_not_public_is_refused(text: str) -> None:
    address = ipaddress.ip_address(text)

    assert not is_public(address)
    with pytest.raises(InvalidSubscriptionError, match="is not public"):
        AllowedHosts(["hooks.example.org"]).check_address("hooks.example.org", address)


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_address_that_is_public_is_allowed(text: str) -> None:
    AllowedHosts(["hooks.example.org"]).check_address("hooks.example.org", ipaddress.ip_address(text))


@pytest.mark.parametrize("entry", ["10.1.2.3", "10.0.0.0/8", "localhost"])
def test_address_that_is_not_public_is_allowed_if_it_is_listed(entry: str) -> None:
    host, address = ("localhost", "127.0.0.1") if entry == "localhost" else ("inside", "10.1.2.3")

    AllowedHosts([entry]).check_address(host, ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("hooks.example.org", True),
        ("a.example.net", True),
        ("example.net", False),
        ("evilexample.org", False),
        ("hooks.example.org.evil.org", False),
        ("10.1.2.3", True),
        ("10.1.3.3", False),
        ("2130706433", False),
        ("0x7f.1", False),
    ],
)
def test_host_is_allowed_if_it_is_listed(host: str, is_allowed: bool) -> None:
    allowed = AllowedHosts(["hooks.example.org", "*.example.net", "10.1.2.0/24"])

    if is_allowed:
        allowed.check_name(host)
    else:
        with pytest.raises(InvalidSubscriptionError, match="STATE_SERVICE_WEBHOOK_HOSTS"):
            allowed.check_name(host)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example.org/",
        "hooks.example.org/x",
        "http:///x",
        "http://ann:secret@hooks.example.org/",
        "http://hooks.example.org/#part",
        "http://hooks.example.org:99999/",
        "http://hooks.example.org\\@evil.org/",
        "http://hooks.example.org/a b",
        "http://hooks.example.org/\r\nHost: evil",
        "http://hööks.example.org/",
        "http://[::1/",
        "file:///etc/passwd",
    ],
)
def test_url_that_is_not_one_of_a_receiver_is_refused(url: str) -> None:
    with pytest.raises(InvalidSubscriptionError, match="url"):
        read_target(url)


def test_url_has_the_parts_of_the_request() -> None:
    target = read_target("https://Hooks.Example.org./a/b?c=d")

    assert (target.host, target.port, target.path, target.host_header) == (
        "hooks.example.org",
        443,
        "/a/b?c=d",
        "hooks.example.org",
    )


def test_signature_is_that_of_standard_webhooks() -> None:
    with receiver() as found:
        body = json.dumps({"type": "test"}).encode()
        timestamp = time.time()
        headers = {
            "webhook-id": "web/7",
            "webhook-timestamp": str(int(timestamp)),
            "webhook-signature": sign(SECRET, "web/7", int(timestamp), body),
        }
        outcome = send(found.url, headers, body, AllowedHosts(["127.0.0.1"]))

    assert (outcome.status, outcome.error) == (204, None)
    assert Webhook(SECRET).verify(found.received[0].body, found.received[0].headers) == {"type": "test"}


def test_secret_that_is_not_base64_is_used_as_it_is() -> None:
    assert read_secret("not base64!") == b"not base64!"
    with pytest.raises(BadRequestError, match="base64"):
        read_secret("whsec_not base64!")


def test_redirect_is_a_failure_and_not_followed() -> None:
    with receiver() as found:
        found.answer = lambda received: 302
        outcome = send(found.url, {}, b"{}", AllowedHosts(["127.0.0.1"]))

    assert (outcome.status, outcome.error) == (302, "the receiver answered 302")
    assert (len(found.refused), found.received) == (1, [])


@pytest.mark.parametrize("allowed", [[], ["localhost.example.org"]], ids=["no host", "another host"])
def test_nothing_is_sent_to_a_host_that_is_not_listed(allowed: list[str]) -> None:
    with receiver() as found:
        outcome = send(found.url, {}, b"{}", AllowedHosts(allowed))

    assert outcome.status is None
    assert "not listed" in str(outcome.error)
    assert (found.refused, found.received) == ([], [])


def test_name_that_resolves_to_a_private_address_is_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as found:
        answer = [(2, 1, 6, "", ("127.0.0.1", found.port))]
        monkeypatch.setattr("app.service.webhooks.socket.getaddrinfo", lambda *args, **kwargs: answer)
        outcome = send(f"http://hooks.example.org:{found.port}/", {}, b"{}", AllowedHosts(["hooks.example.org"]))

    assert "has the address 127.0.0.1, which is not public" in str(outcome.error)
    assert (found.refused, found.received) == ([], [])


def test_receiver_that_does_not_answer_is_a_failure_in_one_line() -> None:
    with receiver() as found:
        pass

    outcome = send(found.url, {}, b"{}", AllowedHosts(["127.0.0.1"]))

    assert outcome.status is None
    assert "\n" not in str(outcome.error)
    assert "refused" in str(outcome.error)


# As much of apprise as is used here: what it is told goes to its `told`.
APPRISE = """
told = []

class Apprise:
    @staticmethod
    def instantiate(url):
        return None if url.endswith("//") else url

    def add(self, url):
        self.url = url
        return True

    def notify(self, body):
        if "broken" in self.url:
            raise ValueError("no such room")
        told.append((self.url, body))
        return "deaf" not in self.url
"""


@pytest.fixture
def apprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library apprise that tells nobody."""
    (tmp_path / "apprise.py").write_text(APPRISE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("apprise", None)


def test_service_that_apprise_knows_is_told_if_its_scheme_is_listed(apprise: None) -> None:
    allowed = AllowedHosts(["hooks.example.org", "slack://"])

    check_notification("slack://token/room")

    assert [allowed.lists_scheme(url) for url in ("SLACK://x", "json://x", "https://slack", "slack", "slack:x")] == [
        *(True, False, False, False, False)
    ]
    assert notify("slack://token/room", "web: pause") == Outcome(None, None)
    assert "could not deliver" in str(notify("slack://deaf/room", "web: pause").error)
    assert notify("slack://broken/room", "web: pause") == Outcome(None, "apprise: no such room")
    with pytest.raises(InvalidSubscriptionError, match="knows no service"):
        check_notification("slack://")


def test_apprise_that_is_not_installed_is_named() -> None:
    with pytest.raises(InvalidSubscriptionError, match="pip install"):
        check_notification("slack://token/room")
    assert "pip install" in str(notify("slack://token/room", "web: pause").error)
