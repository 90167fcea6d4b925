"""Who may use which route: one table of roles, and no for every route that is not in it.

A caller shows a token (`Authorization: Bearer ...`, or the password of Basic), or the session of the pages.

Before anything else, both doors check what the headers say about the page or the program that sent the request: its
host, its origin, its body's type. Without these checks a page that an operator visits could act on a service that is
open on the operator's machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import cast
from urllib.parse import urlsplit

from flask import Flask, Response, current_app
from flask import request as flask_request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.datastructures import Authorization

from app.config import Config, loopback_hosts
from app.core.errors import BadRequestError, ForbiddenError, UnauthenticatedError
from app.service.context import Service
from app.service.tokens import (
    ANYBODY,
    MAX_AGE,
    Holder,
    Role,
    TokenCache,
    begin_session,
    end_session,
    find_session_holder,
)
from app.web.request import (
    MACHINE_LENGTH,
    Request,
    check_text,
    current_request,
    current_service,
    decode_header,
    normalize_host,
)

# Hosts and pages

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
    hosts = config.trusted_hosts or loopback_hosts(config.bind)
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


# Tokens, sessions and roles

COOKIE = "stateservice_session"
# Before the name of each cookie behind TLS. A browser takes such a cookie only from this host itself, over TLS: no
# other host of the same domain can put one in its place.
HOST_PREFIX = "__Host-"
# Seconds for which a browser talks to this host over TLS alone, once it has.
TLS_SECONDS = 31_536_000

# The role that each endpoint needs; None means that it is open to everybody.
RULES: dict[str, Role | None] = {
    "state.get_default_state": Role.READER,
    "state.get_state": Role.READER,
    "state.get_default_reached": Role.READER,
    "state.get_reached": Role.READER,
    "state.get_default_turn": Role.READER,
    "state.get_turn": Role.READER,
    "state.put_default_state": Role.MACHINE,
    "state.put_state": Role.MACHINE,
    "state.put_slot": Role.MACHINE,
    "state.delete_slot": Role.MACHINE,
    "charts.get_can": Role.READER,
    "charts.get_did": Role.READER,
    "charts.get_charts": Role.READER,
    "charts.get_chart": Role.READER,
    "charts.get_runs": Role.READER,
    # Of charts: those that the holder's pattern covers.
    "charts.get_logs": Role.READER,
    # It reads the whole log and replays it: not for everyone who may look.
    "charts.get_verify": Role.OPERATOR,
    "charts.get_versions": Role.READER,
    "charts.get_version": Role.READER,
    "charts.put_chart": Role.ADMIN,
    "calendars.get_calendars": Role.READER,
    "calendars.get_calendar": Role.READER,
    "calendars.get_calendar_versions": Role.READER,
    "calendars.get_calendar_version": Role.READER,
    "calendars.put_calendar": Role.ADMIN,
    "charts.get_history": Role.READER,
    "charts.get_machines": Role.READER,
    # Of charts: those that the holder's pattern covers.
    "charts.get_machine": Role.READER,
    # A chart pattern does not name rosters; an import needs one that covers every chart (app/web/rosters.py).
    "rosters.get_rosters": Role.READER,
    "rosters.get_roster": Role.READER,
    "rosters.get_roster_versions": Role.READER,
    "rosters.get_roster_version": Role.READER,
    "rosters.get_roster_diff": Role.READER,
    "rosters.put_roster": Role.ADMIN,
    "operate.post_pause": Role.OPERATOR,
    "operate.post_resume": Role.OPERATOR,
    "operate.post_reset": Role.OPERATOR,
    "operate.post_goto": Role.OPERATOR,
    "operate.post_open": Role.OPERATOR,
    "operate.post_archive": Role.ADMIN,
    "operate.post_evict": Role.OPERATOR,
    # A subscription may tell of any chart.
    "subscriptions.get_subscriptions": Role.ADMIN,
    "subscriptions.get_subscription": Role.ADMIN,
    "subscriptions.put_subscription": Role.ADMIN,
    "subscriptions.delete_subscription": Role.ADMIN,
    "subscriptions.get_deliveries": Role.ADMIN,
    "subscriptions.post_test": Role.ADMIN,
    # The chart is in the body: the views check the pattern themselves.
    "fleetlock.post_pre_reboot": Role.MACHINE,
    "fleetlock.post_steady_state": Role.MACHINE,
    "observe.get_metrics": Role.READER,
    "observe.get_openapi": Role.READER,
    # Editors fetch it, and they have no token. It is the same for every server of this version.
    "observe.get_chart_schema": None,
    "charts.get_diagram": Role.READER,
    "static": None,
    "ui.get_login": None,
    "ui.post_login": None,
    "ui.post_logout": None,
    "ui.get_index": Role.READER,
    "ui.get_chart": Role.READER,
    "ui.get_machine": Role.READER,
    "ui.get_rosters": Role.READER,
    "ui.get_docs": Role.READER,
    "ui.get_changes": Role.READER,
    "ui.get_chart_version": Role.READER,
    "ui.get_chart_runs": Role.READER,
    "ui.get_what_if": Role.READER,
    "ui.get_nothing": Role.READER,
    # The view asks for more where the act needs it.
    "ui.post_act": Role.OPERATOR,
    # The chart is in the body: the view checks the pattern itself.
    "ui.get_import": Role.ADMIN,
    "ui.post_import": Role.ADMIN,
    "ui.get_tokens": Role.ADMIN,
    "ui.post_token": Role.ADMIN,
    "ui.post_revoke": Role.ADMIN,
    "ui.get_subscriptions": Role.ADMIN,
    "ui.get_subscription": Role.ADMIN,
    "ui.post_subscription": Role.ADMIN,
    "ui.post_subscription_test": Role.ADMIN,
    "ui.post_subscription_delete": Role.ADMIN,
    "tokens.get_tokens": Role.ADMIN,
    "tokens.put_token": Role.ADMIN,
    "tokens.delete_token": Role.ADMIN,
    "tokens.post_enrol": Role.ENROL,
    "observe.get_healthz": None,
    "observe.get_readyz": None,
}

# These endpoints may tell of any chart.
FOR_ALL_CHARTS = (
    *("subscriptions.", "ui.get_subscription", "ui.post_subscription", "calendars.put_calendar", "rosters.put_roster"),
    *("tokens.get_tokens", "tokens.put_token", "tokens.delete_token"),
)

# The reports that an approver may send, too.
APPROVING = frozenset({"state.put_state", "state.put_default_state", "ui.post_act"})


class Access:
    """Finds out who sends a request; remembers tokens and sessions for a moment."""

    def __init__(self, config: Config, service: Service) -> None:
        self.uses_tokens = config.auth == "tokens"
        self.serializer = (
            None
            if config.secret_key is None
            else URLSafeTimedSerializer(config.secret_key, salt="stateservice-session")
        )
        self._service = service
        self._tokens = TokenCache()

    def find_known(self, request: Request) -> Holder | None:
        """Who sends the request, if that can be told without asking the database; else None."""
        if not self.uses_tokens:
            return ANYBODY
        secret = find_secret(request)
        return None if secret is None else self._tokens.find(secret)

    def authenticate(self, request: Request, *, is_form: bool = False) -> Holder:
        """The holder of the token, or else of the session, that the request carries.

        A session may ask on every route; it changes things only by the forms of the pages (`is_form`). May ask the
        database. Raises UnauthenticatedError, DatabaseUnavailableError.
        """
        if not self.uses_tokens:
            return ANYBODY
        secret = find_secret(request)
        if secret is not None:
            return self.find_holder(secret)
        if request.method in SAFE_METHODS or is_form:
            holder = self._find_session(request)
            if holder is not None:
                return holder
        raise UnauthenticatedError("a token is required: Authorization: Bearer TOKEN")

    def find_holder(self, secret: str) -> Holder:
        """The holder of a token. Raises UnauthenticatedError, DatabaseUnavailableError."""
        return self._tokens.authenticate(self._service, secret)

    def write_uses(self) -> None:
        """Write which tokens were used since the last call. Raises DatabaseUnavailableError."""
        self._tokens.write_uses(self._service)

    def find_session(self, request: Request) -> str | None:
        """The secret of the session that the request's cookie names, if this service has signed it."""
        value = _find_cookie(request)
        if value is None or self.serializer is None:
            return None
        try:
            return str(self.serializer.loads(value, max_age=int(MAX_AGE.total_seconds())))
        except BadSignature:
            return None

    def _find_session(self, request: Request) -> Holder | None:
        secret = self.find_session(request)
        if secret is None:
            return None
        # A browser says `navigate` of the pages that a person opens; our script fetches the page and its news.
        is_person = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
        return find_session_holder(self._service, self._tokens, secret, is_person=is_person)


def register(app: Flask, access: Access) -> None:
    """Have every request that Flask answers judged before its view runs."""
    app.extensions["stateservice.access"] = access
    app.before_request(authorize)
    app.after_request(_keep_to_tls)


def current_access() -> Access:
    """The access rules of this app."""
    return cast(Access, current_app.extensions["stateservice.access"])


def can_start() -> bool:
    """True if there is a key to sign sessions with."""
    return current_access().serializer is not None


def start(response: Response, holder: Holder) -> None:
    """Begin a session of `holder`, which the browser names with every request from now on, for half a day."""
    serializer = current_access().serializer
    assert serializer is not None, "sessions need a key"
    assert holder.id is not None, "a session belongs to a token"
    value = str(serializer.dumps(begin_session(current_service(), holder.id)))
    response.set_cookie(
        name_cookie(COOKIE, is_secure=flask_request.is_secure),
        value,
        max_age=MAX_AGE,
        httponly=True,
        samesite="Lax",
        secure=flask_request.is_secure,
        path="/",
    )


def end(response: Response) -> None:
    """End the session that the browser names, everywhere, and have the browser forget it."""
    end_session_of_browser()
    name = name_cookie(COOKIE, is_secure=flask_request.is_secure)
    if name in flask_request.cookies:
        response.delete_cookie(name, httponly=True, samesite="Lax", secure=flask_request.is_secure, path="/")


def end_session_of_browser() -> None:
    """End the session that the browser names, if it names one."""
    secret = current_access().find_session(current_request())
    if secret is not None:
        end_session(current_service(), secret)


def name_cookie(name: str, *, is_secure: bool) -> str:
    """The name under which a cookie is kept."""
    return HOST_PREFIX + name if is_secure else name


def _keep_to_tls(response: Response) -> Response:
    if flask_request.is_secure:
        response.headers["Strict-Transport-Security"] = f"max-age={TLS_SECONDS}"
    return response


def authorize() -> None:
    """Find out who sends the request and whether they may. Raises UnauthenticatedError, ForbiddenError."""
    asked, access, endpoint = current_request(), current_access(), flask_request.endpoint
    asked.holder = ANYBODY
    if not access.uses_tokens or endpoint is None:
        return
    if endpoint not in RULES:
        raise ForbiddenError(f"{flask_request.path} is not allowed for any role")
    if RULES[endpoint] is None:
        return
    asked.holder = access.authenticate(asked, is_form=flask_request.blueprint == "ui")
    admit(asked.holder, endpoint, (flask_request.view_args or {}).get("name"))


def admit(holder: Holder, endpoint: str, chart: str | None) -> None:
    """Raise ForbiddenError unless `holder` may use `endpoint` on `chart`."""
    role = RULES[endpoint]
    if endpoint in APPROVING and holder.role is Role.APPROVER:
        # Whether the state is one of approvers is judged under the chart's lock.
        role = Role.APPROVER
    if role is not None:
        check(holder, role, chart)
        if endpoint.startswith(FOR_ALL_CHARTS) and not holder.is_for_all_charts:
            raise ForbiddenError(
                f"token {holder.name!r} is for charts {holder.pattern!r}: this needs one for all charts"
            )


def check(holder: Holder, role: Role, chart: str | None) -> None:
    """Raise ForbiddenError unless `holder` has `role` for `chart`."""
    if not holder.may(role):
        raise ForbiddenError(f"token {holder.name!r} has the role {holder.role}: this needs {role}")
    if not holder.may(role, chart):
        raise ForbiddenError(f"token {holder.name!r} is for charts {holder.pattern!r}, not for {chart!r}")


def check_may_manage_tokens(holder: Holder) -> None:
    """Raise ForbiddenError unless `holder` may make tokens for any chart: no holder grants more than they hold."""
    if not holder.is_for_all_charts:
        raise ForbiddenError(
            f"token {holder.name!r} is for charts {holder.pattern!r}; managing tokens requires a token for all charts"
        )


def find_secret(request: Request) -> str | None:
    """The token of `Authorization: Bearer TOKEN`, or the password of `curl -u NAME:TOKEN`."""
    sent = Authorization.from_header(request.headers.get("authorization"))
    if sent is None:
        return None
    if sent.type == "basic":
        return sent.password or None
    return sent.token if sent.type == "bearer" else None


def _find_cookie(request: Request) -> str | None:
    try:
        name = name_cookie(COOKIE, is_secure=request.is_secure)
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value
