"""The fast lane: GET and PUT on a state, past Flask's request handling, which would cost more than all the rest.

It takes what it knows for sure and leaves everything else to Flask; both doors lead to the same functions of state.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from flask import Blueprint, Flask, Response, request
from werkzeug.sansio.utils import host_is_trusted

from app.config import Config
from app.service.ask import Question, ask
from app.service.context import Service, find_default_chart
from app.service.put import Answer, Put, update
from app.service.tokens import ANYBODY, TokenCache
from app.web import observe
from app.web.auth import admit, find_secret
from app.web.replies import StartResponse, answer_reply, answer_response, problem_reply
from app.web.request import MACHINE_LENGTH, NAME_LENGTH, Environ, Query, author_of, begin_note, current_service, note_of

blueprint = Blueprint("state", __name__)
# Seconds; below the minute after which many proxies give up on a silent server.
MAX_WAIT = 55


def answer_get(service: Service, environ: Environ, name: str | None, *, reached: bool = False) -> Answer:
    """Answer "may I?", or "was it?", asked of a chart or of the default one."""
    query = Query(environ)
    question = Question(
        state=query.get("state", NAME_LENGTH),
        machine=query.find("machine", MACHINE_LENGTH, "X-Machine"),
        reached=reached,
    )
    wait = query.find_number("wait", 0, MAX_WAIT) or 0
    return ask(service, name or find_default_chart(service), question, wait)


def answer_put(service: Service, environ: Environ, name: str | None) -> Answer:
    """Answer "I did", said to a chart or to the default one."""
    query = Query(environ)
    key = query.find_header("Idempotency-Key", MACHINE_LENGTH)
    put = Put(
        state=query.get("state", NAME_LENGTH),
        machine=query.find("machine", MACHINE_LENGTH, "X-Machine"),
        key=query.find("key", NAME_LENGTH),
        idempotency_key=key,
    )
    return update(service, name or find_default_chart(service), put, author_of(environ, key))


@blueprint.get("/state", provide_automatic_options=False)
def get_default_state() -> Response:
    """May I? Asked of the default chart."""
    return answer_response(answer_get(current_service(), request.environ, None))


@blueprint.get("/charts/<chart:name>/state", provide_automatic_options=False)
def get_state(name: str) -> Response:
    """May I? 200 where the state is current, else 406."""
    return answer_response(answer_get(current_service(), request.environ, name))


@blueprint.get("/reached", provide_automatic_options=False)
def get_default_reached() -> Response:
    """Was it? Asked of the default chart."""
    return answer_response(answer_get(current_service(), request.environ, None, reached=True))


@blueprint.get("/charts/<chart:name>/reached", provide_automatic_options=False)
def get_reached(name: str) -> Response:
    """Was it? 200 where the state was entered in this run, else 406."""
    return answer_response(answer_get(current_service(), request.environ, name, reached=True))


@blueprint.put("/state", provide_automatic_options=False)
def put_default_state() -> Response:
    """I did, said to the default chart."""
    return answer_response(answer_put(current_service(), request.environ, None))


@blueprint.put("/charts/<chart:name>/state", provide_automatic_options=False)
def put_state(name: str) -> Response:
    """I did: 200 where it was counted, now or before, else 406."""
    return answer_response(answer_put(current_service(), request.environ, name))


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
        observe.finish(self._config, environ, route.rule, reply.status)
        return reply.send(start_response, is_head=is_head)

    def _is_host_ours(self, environ: Environ) -> bool:
        hosts = self._config.trusted_hosts
        return not hosts or host_is_trusted(environ.get("HTTP_HOST"), hosts)

    def _answer(self, environ: Environ, route: Route, name: str | None, secret: str | None) -> Answer:
        holder = ANYBODY if secret is None else self._tokens.authenticate(self._service, secret)
        note_of(environ).holder = holder
        admit(self._service, holder, route.endpoint, name)
        if environ["REQUEST_METHOD"] == "PUT":
            return answer_put(self._service, environ, name)
        return answer_get(self._service, environ, name, reached=route.is_reached)
