"""Sends one webhook or notification: where it may go, how it is signed, and what came back.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com). A receiver's address is checked
when it is connected to, and the connection goes to the address that was checked, so that a name which resolves to
another address a moment later reaches nothing else.

A notification goes to a service that the library apprise knows, which makes its own connections. So it goes only where
the URL's scheme is listed, such as `slack://`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from app.core.errors import BadRequestError, InvalidSubscriptionError

SECRET_PREFIX = "whsec_"
# Seconds.
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0
URL_LENGTH = 2000
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
# The only IPv6 addresses that are given out for the public internet; and those among them that carry another address.
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_TRANSLATED = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook goes: the parts of its URL. `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """The Host header: the port is left out if it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of sending a webhook. It was delivered if `error` is None; `status` is None if no answer came."""

    status: int | None
    error: str | None


class AllowedHosts:
    """The entries of STATE_SERVICE_WEBHOOK_HOSTS.

    They are host names, patterns such as `*.example.org`, addresses, networks, and schemes such as `slack://`.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self.entries = tuple(entries)
        self._networks = [network for entry in entries if (network := read_network(entry)) is not None]

    def check_name(self, host: str) -> None:
        """Raise InvalidSubscriptionError unless the host itself, a name or an address, is allowed."""
        address = _read_address(host)
        if address is not None:
            if not self._lists(address):
                raise InvalidSubscriptionError(f"the address {host} is not listed in STATE_SERVICE_WEBHOOK_HOSTS")
        elif not any(fnmatchcase(host, entry) for entry in self.entries):
            raise InvalidSubscriptionError(f"the host {host!r} is not listed in STATE_SERVICE_WEBHOOK_HOSTS")

    def check_address(self, host: str, address: Address) -> None:
        """Raise InvalidSubscriptionError if `host` has resolved to an address that is not public and not listed."""
        if host == "localhost" and address.is_loopback and host in self.entries:
            return
        if not is_public(address) and not self._lists(address):
            raise InvalidSubscriptionError(
                f"{host} has the address {address}, which is not public and not listed in STATE_SERVICE_WEBHOOK_HOSTS"
            )

    def lists_scheme(self, url: str) -> bool:
        """Return whether the scheme of `url` is listed, so that apprise tells the service that the URL names."""
        scheme, colon, _ = url.partition("://")
        return f"{scheme.lower()}{colon}" in self.entries if colon else False

    def _lists(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def read_network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network or the single address that an entry means; None if the entry is a name."""
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _read_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Return whether an address is one on the public internet, and hides no other one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _PUBLIC_IPV6 or any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


def read_target(url: str) -> Target:
    """Return the parts of a receiver's URL. Raises InvalidSubscriptionError, which names what is wrong."""
    if len(url) > URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise InvalidSubscriptionError(f"url must be at most {URL_LENGTH} printable ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidSubscriptionError(f"url {url!r}: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidSubscriptionError(f"url {url!r} must begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise InvalidSubscriptionError("url must not contain a user or a password: the signature shows who sends")
    if parts.fragment:
        raise InvalidSubscriptionError("url must not have a fragment (#...)")
    host = (parts.hostname or "").removesuffix(".")
    if _read_address(host) is None and not _HOST.fullmatch(host):
        raise InvalidSubscriptionError(f"url {url!r} names no host")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], path)


def read_secret(secret: str) -> bytes:
    """Return the key that a subscription's secret stands for.

    As Standard Webhooks has it, a secret is base64, usually with `whsec_` before it; any other text is used as it is.
    Raises BadRequestError for `whsec_` before something that is not base64.
    """
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        if secret.startswith(SECRET_PREFIX):
            raise BadRequestError(f"secret: what follows {SECRET_PREFIX} is not base64") from None
        return secret.encode()


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature` of Standard Webhooks: `v1,` and the base64 of an HMAC-SHA256."""
    message = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(read_secret(secret), message, hashlib.sha256)).decode()


def send(url: str, headers: dict[str, str], body: bytes, allowed: AllowedHosts) -> Outcome:
    """Send a webhook to `url` and return what came of it. Anything but a 2xx status is a failure, redirects too."""
    try:
        target = read_target(url)
        allowed.check_name(target.host)
        address = _resolve(target, allowed)
    except (InvalidSubscriptionError, OSError) as error:
        return Outcome(None, str(error) or type(error).__name__)
    try:
        status = _post(target, address, headers, body)
    except (HTTPError, OSError) as error:
        return Outcome(None, _in_one_line(error))
    return Outcome(status, None if 200 <= status < 300 else f"the receiver answered {status}")


def check_notification(url: str) -> None:
    """Raise InvalidSubscriptionError unless apprise is there and knows the service that `url` names."""
    if len(url) > URL_LENGTH or not url.isprintable():
        raise InvalidSubscriptionError(f"url must be at most {URL_LENGTH} printable characters")
    if _load_apprise().Apprise.instantiate(url) is None:
        raise InvalidSubscriptionError(f"url: apprise knows no service by such a {url.partition(':')[0]}:// address")


def notify(url: str, text: str) -> Outcome:
    """Have apprise tell the service that `url` names, and return what came of it."""
    try:
        sender = _load_apprise().Apprise()
        is_told = sender.add(url) and sender.notify(body=text)
    except InvalidSubscriptionError as error:
        return Outcome(None, str(error))
    except Exception as error:
        # Each of its plugins is a program of its own.
        return Outcome(None, f"apprise: {_in_one_line(error)}")
    return Outcome(None, None if is_told else "apprise could not deliver it; the log of the service says why")


def _load_apprise() -> Any:
    # Here, because it is large, and few need it.
    try:
        return import_module("apprise")
    except ImportError:
        raise InvalidSubscriptionError(
            "url: the library apprise is not installed: pip install 'stateservice[apprise]', or pip install apprise"
        ) from None


def _resolve(target: Target, allowed: AllowedHosts) -> str:
    """Return an address of the target, after all of them were checked."""
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        allowed.check_address(target.host, ipaddress.ip_address(address))
    return addresses[0]


def _post(target: Target, address: str, headers: dict[str, str], body: bytes) -> int:
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
    if target.scheme == "https":
        pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
            address,
            target.port,
            timeout=timeout,
            cert_reqs="CERT_REQUIRED",
            server_hostname=target.host,
            assert_hostname=target.host,
        )
    else:
        pool = urllib3.HTTPConnectionPool(address, target.port, timeout=timeout)
    with pool:
        answer = pool.urlopen(
            "POST",
            target.path,
            body=body,
            headers={"Host": target.host_header, **headers},
            retries=False,
            redirect=False,
            # What the receiver says is not read: it may be endless.
            preload_content=False,
            assert_same_host=False,
        )
        answer.close()
        return int(answer.status)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
