"""The questions and the report: `state`, `reached`, `turn` and `slot`, of a chart or of the default one.

`respond` answers them all, on the event loop. A worker with an event loop (app/serving.py) calls it directly; under any
other WSGI server `StateRoutes` does, before Flask: there is one implementation of parameters, access, answer and log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

from flask import Flask
from werkzeug.routing import Rule

from app.config import Config
from app.core.errors import ForbiddenError, NoDefaultChartError
from app.core.position import Claim, Release
from app.service.ask import Question
from app.service.machines import Machines
from app.service.put import Answer, Put
from app.service.tokens import Holder
from app.web import auth, observe
from app.web.auth import Access, admit
from app.web.replies import Reply, StartResponse, answer_reply, describe, problem_reply
from app.web.request import (
    MACHINE_LENGTH,
    MAX_SENT,
    NAME_LENGTH,
    TOO_LARGE,
    Environ,
    Query,
    Request,
    normalize_host,
    read_body_end,
    request_of,
)

_PATH = re.compile(
    r"(?:/charts/(?P<chart>(?!\.{1,2}/)[A-Za-z0-9_.:\-]{1,128}))?/(?P<resource>state|reached|slot|turn)/?"
)
# What the log has for a caller that hung up before its answer, as nginx does.
CLIENT_GONE = 499
# A GET does not use `key` and `note`, nor a PUT `wait` and `again`: clients use one URL for both.
STATE_PARAMETERS = ("state", "machine", "key", "wait", "run", "again", "note")
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


async def get_state(machines: Machines, request: Request, chart: str) -> Answer:
    """May I? Yes if the state is current."""
    return await _ask(machines, request, chart, reached=False)


async def get_reached(machines: Machines, request: Request, chart: str) -> Answer:
    """Was it? Yes if the state was entered in this run."""
    return await _ask(machines, request, chart, reached=True)


async def _ask(machines: Machines, request: Request, chart: str, *, reached: bool) -> Answer:
    query = Query(request, STATE_PARAMETERS)
    # Not used here: what a PUT would refuse is refused all the same.
    query.find("key", NAME_LENGTH)
    query.find_note_in_query()
    question = Question(
        chart=chart,
        state=query.get("state", NAME_LENGTH),
        machine=query.find_machine(),
        reached=reached,
        run=query.find_run(),
        again=query.find_flag("again"),
    )
    return await machines.ask(question, query.find_wait(), request.token)


async def get_turn(machines: Machines, request: Request, chart: str) -> Answer:
    """Is there anything for me? Yes, with the current state's name, if the machine may act in that state now."""
    query = Query(request, ("machine", "wait", "run", "again"))
    author = request.author
    question = Question(
        chart=chart,
        state=None,
        machine=query.get_machine(),
        run=query.find_run(),
        again=query.find_flag("again"),
        approver=author.actor if author.may_approve else None,
    )
    return await machines.ask(question, query.find_wait(), request.token)


async def put_state(machines: Machines, request: Request, chart: str) -> Answer:
    """I did: yes if it was counted, now or before."""
    query = Query(request, STATE_PARAMETERS)
    # Not used here: what a GET would refuse is refused all the same.
    query.find_wait()
    query.find_flag("again")
    key = query.find_header("Idempotency-Key", MACHINE_LENGTH)
    put = Put(
        query.get("state", NAME_LENGTH),
        query.find_machine(),
        query.find("key", NAME_LENGTH),
        run=query.find_run(),
        note=query.find_note(),
    )
    return await machines.put(chart, put, request.author_with(key))


async def put_slot(machines: Machines, request: Request, chart: str) -> Answer:
    """Claim a slot: yes if the machine holds one."""
    query = Query(request, ("state", "machine", "wait", "run", "again"))
    claim = Claim(
        query.get("state", NAME_LENGTH), query.get_machine(), run=query.find_run(), again=query.find_flag("again")
    )
    return await machines.claim(chart, claim, request.author, query.find_wait(), request.token)


async def delete_slot(machines: Machines, request: Request, chart: str) -> Answer:
    """Give a slot back: yes also if the machine held none."""
    query = Query(request, ("state", "machine", "run"))
    release = Release(query.get("state", NAME_LENGTH), query.get_machine(), query.find_run())
    return await machines.release(chart, release, request.author)


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one resource: its name in the table of roles, its rule, and what answers it."""

    endpoint: str
    rule: str
    answer: Callable[[Machines, Request, str], Awaitable[Answer]]


_STATE, _REACHED, _SLOT = "/charts/<chart:name>/state", "/charts/<chart:name>/reached", "/charts/<chart:name>/slot"
# By resource, whether a chart is named, and method.
ROUTES: dict[tuple[str, bool], dict[str, Route]] = {
    ("state", False): {
        "GET": Route("state.get_default_state", "/state", get_state),
        "PUT": Route("state.put_default_state", "/state", put_state),
    },
    ("state", True): {
        "GET": Route("state.get_state", _STATE, get_state),
        "PUT": Route("state.put_state", _STATE, put_state),
    },
    ("reached", False): {"GET": Route("state.get_default_reached", "/reached", get_reached)},
    ("reached", True): {"GET": Route("state.get_reached", _REACHED, get_reached)},
    ("turn", False): {"GET": Route("state.get_default_turn", "/turn", get_turn)},
    ("turn", True): {"GET": Route("state.get_turn", "/charts/<chart:name>/turn", get_turn)},
    ("slot", True): {
        "PUT": Route("state.put_slot", _SLOT, put_slot),
        "DELETE": Route("state.delete_slot", _SLOT, delete_slot),
    },
}


class StateDoor:
    """Answers the requests of machines, whichever server received them."""

    def __init__(self, config: Config, machines: Machines, access: Access) -> None:
        self.machines = machines
        self._config = config
        self._access = access

    def find_routes(self, request: Request) -> dict[str, Route] | None:
        """The routes that the request's path has here, by method; None if Flask answers that path."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            return None
        request.chart = match["chart"]
        routes = ROUTES.get((match["resource"], request.chart is not None))
        route = None if routes is None else _find_route(request, routes)
        request.rule = None if route is None else route.rule
        return routes

    def admit_upload(self, request: Request) -> None:
        """Raise UnauthenticatedError or ForbiddenError unless the caller may import rosters. May ask the database."""
        admit(self._access.authenticate(request), "rosters.put_roster", None)

    def note_gone(self, request: Request) -> None:
        """Count and log a request whose caller hung up before its answer."""
        observe.finish(self._config, request, CLIENT_GONE)

    async def respond(self, request: Request, routes: dict[str, Route]) -> Reply:
        """Answer a request on one of `routes`; every error becomes its reply, and the request is counted and logged."""
        route = _find_route(request, routes)
        try:
            auth.check_request(self._config, request)
            if request.body_end is None:
                # Before anything is counted: the client must not take a counted report for a failed one.
                reply = describe(413, TOO_LARGE.format(MAX_SENT), request)
            elif route is None:
                reply = _refuse_method(request, routes)
            else:
                reply = answer_reply(await self._answer(request, route), request)
        except asyncio.CancelledError:
            self.note_gone(request)
            raise
        except Exception as error:
            reply = problem_reply(error, request)
        observe.finish(self._config, request, reply.status)
        return reply

    async def _answer(self, request: Request, route: Route) -> Answer:
        holder = self._access.find_known(request)
        if holder is None:
            holder = await self.machines.read(lambda: self._access.authenticate(request))
        request.holder = holder
        if self._access.uses_tokens:
            # The role comes first: a token of another role is told that, and not which charts there are.
            admit(holder, route.endpoint, request.chart)
        if request.chart is not None:
            return await route.answer(self.machines, request, request.chart)
        chart = await self._find_default_chart(holder)
        return await route.answer(self.machines, request, chart)

    async def _find_default_chart(self, holder: Holder) -> str:
        """The default chart, guarded as if it were named. Raises ForbiddenError, NoDefaultChartError."""
        if holder.is_for_all_charts:
            return await self.machines.find_default_chart()
        try:
            chart = await self.machines.find_default_chart()
        except NoDefaultChartError:
            chart = ""
        if not holder.covers(chart):
            # In the same words in both cases: a token does not learn of charts that it is not for.
            raise ForbiddenError(
                f"token {holder.name!r} is for charts {holder.pattern!r}: the default chart is not one of them, or"
                " there is none"
            )
        return chart


def _find_route(request: Request, routes: dict[str, Route]) -> Route | None:
    return routes.get("GET" if request.method == "HEAD" else request.method)


def _refuse_method(request: Request, routes: dict[str, Route]) -> Reply:
    allowed = {"HEAD", *routes} if "GET" in routes else set(routes)
    reply = describe(405, f"{request.method} {request.path}", request)
    return replace(reply, headers=(*reply.headers, ("Allow", ", ".join(sorted(allowed)))))


class StateRoutes:
    """A WSGI application before Flask's, for servers without an event loop of ours."""

    def __init__(self, app: Flask, door: StateDoor) -> None:
        self._behind = cast(Application, app.wsgi_app)
        self._door = door

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_HOST" in environ:
            environ["HTTP_HOST"] = normalize_host(environ["HTTP_HOST"])
        request = request_of(environ)
        routes = self._door.find_routes(request)
        if routes is None:
            return self._behind(environ, start_response)
        request.body_end = read_body_end(environ)
        reply = self._door.machines.call(self._door.respond(request, routes))
        return reply.send(start_response, is_head=request.method == "HEAD")


def register(app: Flask, door: StateDoor) -> None:
    """Answer these routes before Flask; Flask knows them to build URLs, and lists them with its own."""
    for routes in ROUTES.values():
        for method, route in routes.items():
            app.url_map.add(Rule(route.rule, endpoint=route.endpoint, methods=[method], build_only=True))
    app.wsgi_app = StateRoutes(app, door)  # type: ignore[method-assign]  # as Flask has one wrap it
