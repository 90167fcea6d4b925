"""The fast lane: GET and PUT on a state, past Flask's request handling, which would cost more than all the rest.

It takes what it knows for sure and leaves everything else to Flask; both doors lead to the same functions of state.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from flask import Flask
from werkzeug.sansio.utils import host_is_trusted

from app.config import Config
from app.service.answers import Answer
from app.service.context import Service
from app.service.tokens import ANYBODY, TokenCache
from app.web import access, state
from app.web.answers import answer_reply
from app.web.auth import admit, find_secret
from app.web.note import Environ, begin_note, note_of
from app.web.problems import problem_reply
from app.web.reply import StartResponse

Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_PATH = re.compile(r"(?:/charts/([A-Za-z0-9_.:\-]{1,128}))?/(state|reached)/?")


@dataclass(frozen=True, slots=True)
class Route:
    """The route of state.py that a request would take through Flask."""

    endpoint: str
    rule: str
    is_reached: bool = False


# By method, resource, and whether a chart is named.
ROUTES = {
    ("GET", "state", False): Route("state.get_default_state", "/state"),
    ("GET", "state", True): Route("state.get_state", "/charts/<chart:name>/state"),
    ("GET", "reached", False): Route("state.get_default_reached", "/reached", is_reached=True),
    ("GET", "reached", True): Route("state.get_reached", "/charts/<chart:name>/reached", is_reached=True),
    ("PUT", "state", False): Route("state.put_default_state", "/state"),
    ("PUT", "state", True): Route("state.put_state", "/charts/<chart:name>/state"),
}


class FastLane:
    """A WSGI application before Flask's."""

    def __init__(self, app: Flask) -> None:
        self.behind = cast(Application, app.wsgi_app)
        self._service: Service = app.extensions["stateservice"]
        self._config: Config = app.extensions["stateservice.config"]
        self._uses_tokens = self._config.auth == "tokens"
        self._tokens: TokenCache = app.extensions["stateservice.tokens"]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, match = environ["REQUEST_METHOD"], _PATH.fullmatch(environ["PATH_INFO"])
        if match is None or not self._is_host_ours(environ):
            return self.behind(environ, start_response)
        secret = find_secret(environ) if self._uses_tokens else None
        if self._uses_tokens and secret is None:
            # Whoever has a session of the pages for a token, or nothing.
            return self.behind(environ, start_response)
        name, resource = match.groups()
        is_head = method == "HEAD"
        route = ROUTES.get(("GET" if is_head else method, resource, name is not None))
        if route is None:
            return self.behind(environ, start_response)
        begin_note(environ).chart = name
        try:
            reply = answer_reply(self._answer(environ, route, name, secret), environ)
        except Exception as error:
            reply = problem_reply(error, environ)
        access.finish(self._config, environ, route.rule, reply.status)
        return reply.send(start_response, is_head=is_head)

    def _is_host_ours(self, environ: Environ) -> bool:
        hosts = self._config.trusted_hosts
        return not hosts or host_is_trusted(environ.get("HTTP_HOST"), hosts)

    def _answer(self, environ: Environ, route: Route, name: str | None, secret: str | None) -> Answer:
        holder = ANYBODY if secret is None else self._tokens.authenticate(self._service, secret)
        note_of(environ).holder = holder
        admit(self._service, holder, route.endpoint, name)
        if environ["REQUEST_METHOD"] == "PUT":
            return state.answer_put(self._service, environ, name)
        return state.answer_get(self._service, environ, name, reached=route.is_reached)
