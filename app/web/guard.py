"""What a request's headers say about the page or the program that sent it: its host, its origin, its body's type.

Both doors ask here before anything else: app/web/state.py on the event loop, and Flask before each view. Without these
checks a page that an operator visits could act on a service that is open on the operator's machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from flask import request as flask_request

from app.config import Config
from app.core.errors import BadRequestError, ForbiddenError
from app.web.request import MACHINE_LENGTH, Request, check_text, current_request, decode_header, normalize_host

# These change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD"})
# What a browser says of a request that one of our pages sent, and of one that a person began. The other values are
# cross-site and same-site; curl and other programs say nothing.
OWN_SITES = frozenset({"same-origin", "none"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Bodies that a form of any site can send. A form can also send application/x-www-form-urlencoded, but `curl -d` says
# that of every body, so it is read: the checks of Origin and Sec-Fetch-Site hold for it.
FORM_TYPES = frozenset({"text/plain", "multipart/form-data"})


class UntrustedHostError(BadRequestError):
    """The Host header names none of the hosts that this service answers for."""


def check_request(config: Config, request: Request) -> None:
    """Refuse a request for another host, or from a page of another site.

    Raises UntrustedHostError, ForbiddenError.
    """
    hosts = config.answered_hosts
    host = request.headers.get("host")
    if hosts and not is_answered(host, hosts, may_be_missing=not config.trusted_hosts):
        raise UntrustedHostError(
            f"this service does not answer for the host {host!r}: STATE_SERVICE_TRUSTED_HOSTS names others"
        )
    if request.method not in SAFE_METHODS:
        check_sender(request.headers)
    if config.proxy_hops:
        read_proxy(config, request)


def read_proxy(config: Config, request: Request) -> None:
    """Note what the proxy says of the client: whether it uses TLS, and which machine its certificate names.

    Without a proxy these headers are the client's own words, and are not read. Raises BadRequestError.
    """
    # As Werkzeug's ProxyFix finds it: the last word is that of the nearest proxy.
    request.is_secure = request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip() == "https"
    if config.machine_header is None:
        return
    request.needs_certificate = True
    sent = request.headers.get(config.machine_header.lower(), "")
    if sent:
        # A comma means that the header came twice: once from the client.
        if "," in sent or sent != sent.strip():
            raise BadRequestError(f"{config.machine_header} does not name one machine")
        name = config.machine_header
        request.certified = check_text(name, decode_header(name, sent), MACHINE_LENGTH)


def is_answered(host: str | None, hosts: Collection[str], *, may_be_missing: bool) -> bool:
    """True if a Host header, with any port, names one of `hosts`; `.example` stands for every name below it, too.

    Every browser sends the header, so `may_be_missing` lets in only programs that speak HTTP/1.0.
    """
    if host is None:
        return may_be_missing
    found = _HOST.fullmatch(normalize_host(host))
    if found is None:
        return False
    name = found["name"].removesuffix(".")
    return any(name == wanted.removeprefix(".") or (wanted[0] == "." and name.endswith(wanted)) for wanted in hosts)


def check_sender(headers: Mapping[str, str]) -> None:
    """Raise ForbiddenError if a browser says that a page of another site sent the request."""
    site = headers.get("sec-fetch-site")
    if site is not None and site.strip().lower() not in OWN_SITES:
        raise ForbiddenError(f"a page of another site sent this (Sec-Fetch-Site: {site[:40]})")
    origin = headers.get("origin")
    if origin is not None and not is_own_origin(origin, headers.get("host")):
        raise ForbiddenError(f"a page of another site sent this (Origin: {origin[:255]})")


def is_own_origin(origin: str, host: str | None) -> bool:
    """True if the page's address `origin` has this host and port.

    The schemes are not compared: behind a proxy that ends TLS, ours is http and the browser's https.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme)
    if port is None or host is None or not parts.netloc:
        return False
    return normalize_host(parts.netloc).removesuffix(port) == normalize_host(host).removesuffix(port)


def check_json_type() -> None:
    """Raise BadRequestError if the body that Flask has in hand is of a type that a form of any site can send."""
    if flask_request.mimetype in FORM_TYPES:
        raise BadRequestError(f"the body is {flask_request.mimetype}: send it with Content-Type: application/json")


def check_before_view(config: Config) -> None:
    """As `check_request`, for the request that Flask has in hand."""
    check_request(config, current_request())
