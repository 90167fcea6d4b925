"""A signed cookie that names the token somebody signed in with."""

from __future__ import annotations

from typing import cast

from flask import Flask, Response, current_app, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from app.config import Config
from app.service.sessions import SessionCache
from app.service.tokens import Holder
from app.web.current import current_service

COOKIE = "stateservice_session"
MAX_AGE = 12 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD"})


def register(app: Flask) -> None:
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
