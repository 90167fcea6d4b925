"""Who may use which route: one table, and no for whatever is not in it."""

from __future__ import annotations

from typing import cast

from flask import Flask, Response, current_app, request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from werkzeug.datastructures import Authorization

from app.config import Config
from app.core.errors import ForbiddenError, UnauthenticatedError
from app.service.context import Service, find_default_chart
from app.service.tokens import ANYBODY, Holder, Role, SessionCache, TokenCache
from app.web.request import Environ, current_service, note_of

COOKIE = "stateservice_session"
MAX_AGE = 12 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD"})


def register_sessions(app: Flask) -> None:
    """Give `app` its cache of sessions."""
    app.extensions["stateservice.sessions"] = SessionCache()


def can_start() -> bool:
    """True where there is a key to sign sessions with."""
    return _find_serializer() is not None


def start(response: Response, holder: Holder) -> None:
    """Have the browser send `holder` with every request from now on, for half a day."""
    serializer = _find_serializer()
    assert serializer is not None, "nobody can sign in without a key"
    value = str(serializer.dumps(holder.name))
    response.set_cookie(
        COOKIE, value, max_age=MAX_AGE, httponly=True, samesite="Lax", secure=request.is_secure, path="/"
    )


def end(response: Response) -> None:
    """Have the browser forget who it was."""
    if COOKIE in request.cookies:
        response.delete_cookie(COOKIE, httponly=True, samesite="Lax", secure=request.is_secure, path="/")


def find_holder() -> Holder | None:
    """Whose session the request carries; a session asks on every route, and changes things by our forms alone."""
    value = request.cookies.get(COOKIE)
    serializer = _find_serializer()
    if value is None or serializer is None:
        return None
    if request.method not in SAFE_METHODS and request.blueprint != "ui":
        return None
    try:
        name = serializer.loads(value, max_age=MAX_AGE)
    except BadSignature:
        return None
    cache = cast(SessionCache, current_app.extensions["stateservice.sessions"])
    return cache.find_holder(current_service(), str(name))


def _find_serializer() -> URLSafeTimedSerializer | None:
    config: Config = current_app.extensions["stateservice.config"]
    return None if config.secret_key is None else URLSafeTimedSerializer(config.secret_key, salt="stateservice-session")


# The role that each endpoint needs; None means that it is open to everybody.
RULES: dict[str, Role | None] = {
    "state.get_default_state": Role.READER,
    "state.get_state": Role.READER,
    "state.get_default_reached": Role.READER,
    "state.get_reached": Role.READER,
    "state.put_default_state": Role.MACHINE,
    "state.put_state": Role.MACHINE,
    "charts.get_can": Role.READER,
    "charts.get_did": Role.READER,
    "charts.get_charts": Role.READER,
    "charts.get_chart": Role.READER,
    "charts.get_versions": Role.READER,
    "charts.get_version": Role.READER,
    "charts.put_chart": Role.ADMIN,
    "charts.get_history": Role.READER,
    "charts.get_machines": Role.READER,
    "operate.post_pause": Role.OPERATOR,
    "operate.post_resume": Role.OPERATOR,
    "operate.post_reset": Role.OPERATOR,
    "operate.post_goto": Role.OPERATOR,
    "operate.post_archive": Role.ADMIN,
    "operate.put_slot": Role.MACHINE,
    "operate.delete_slot": Role.MACHINE,
    "operate.post_evict": Role.OPERATOR,
    # The chart is in the body: the views check the pattern themselves.
    "fleetlock.post_pre_reboot": Role.MACHINE,
    "fleetlock.post_steady_state": Role.MACHINE,
    "observe.get_metrics": Role.READER,
    "observe.get_openapi": Role.READER,
    "charts.get_diagram": Role.READER,
    "static": None,
    "ui.get_login": None,
    "ui.post_login": None,
    "ui.post_logout": None,
    "ui.get_index": Role.READER,
    "ui.get_chart": Role.READER,
    "ui.get_changes": Role.READER,
    "ui.get_chart_version": Role.READER,
    "ui.get_nothing": Role.READER,
    # The view asks for more where the act needs it.
    "ui.post_act": Role.OPERATOR,
    # The chart is in the body: the view checks the pattern itself.
    "ui.get_import": Role.ADMIN,
    "ui.post_import": Role.ADMIN,
    "ui.get_tokens": Role.ADMIN,
    "ui.post_token": Role.ADMIN,
    "ui.post_revoke": Role.ADMIN,
    "observe.get_healthz": None,
    "observe.get_readyz": None,
}
# Routes of the default chart, which its pattern guards as if it were named.
_DEFAULT_CHART = frozenset({"state.get_default_state", "state.get_default_reached", "state.put_default_state"})


def register(app: Flask) -> None:
    """Have every request judged before its view runs."""
    app.extensions["stateservice.tokens"] = TokenCache()
    app.before_request(authorize)


def authorize() -> None:
    """Find out who sends the request and whether they may. Raises UnauthenticatedError, ForbiddenError."""
    note = note_of(request.environ)
    note.holder = ANYBODY
    endpoint = request.endpoint
    if current_app.extensions["stateservice.config"].auth != "tokens" or endpoint is None:
        return
    if endpoint not in RULES:
        raise ForbiddenError(f"{request.path} is allowed to nobody")
    if RULES[endpoint] is None:
        return
    note.holder = authenticate()
    admit(current_service(), note.holder, endpoint, (request.view_args or {}).get("name"))


def admit(service: Service, holder: Holder, endpoint: str, chart: str | None) -> None:
    """Raise ForbiddenError unless `holder` may use `endpoint` on `chart`."""
    role = RULES[endpoint]
    if role is not None:
        check(holder, role, find_default_chart(service) if endpoint in _DEFAULT_CHART else chart)


def check(holder: Holder, role: Role, chart: str | None) -> None:
    """Raise ForbiddenError unless `holder` has `role` for `chart`."""
    if not holder.may(role):
        raise ForbiddenError(
            f"token {holder.name!r} has the role {holder.role.name.lower()}: this needs {role.name.lower()}"
        )
    if not holder.may(role, chart):
        raise ForbiddenError(f"token {holder.name!r} is for charts {holder.pattern!r}, not for {chart!r}")


def authenticate() -> Holder:
    """The holder of the token, or else of the session, that the request carries. Raises UnauthenticatedError."""
    secret = find_secret(request.environ)
    if secret is None:
        holder = find_holder()
        if holder is not None:
            return holder
        raise UnauthenticatedError("a token is required: Authorization: Bearer TOKEN")
    cache = cast(TokenCache, current_app.extensions["stateservice.tokens"])
    return cache.authenticate(current_service(), secret)


def find_secret(environ: Environ) -> str | None:
    """The token of `Authorization: Bearer TOKEN`, or the password of `curl -u NAME:TOKEN`."""
    sent = Authorization.from_header(environ.get("HTTP_AUTHORIZATION"))
    if sent is None:
        return None
    if sent.type == "basic":
        return sent.password or None
    return sent.token if sent.type == "bearer" else None
