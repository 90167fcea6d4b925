"""GET and PUT on a state: may I, and I did.

A request comes through the fast lane (fastlane.py), or through Flask where that lane does not know what to do with it.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from app.service.answers import Answer
from app.service.ask import Question, ask
from app.service.context import Service, find_default_chart
from app.service.update import Put, update
from app.web.answers import answer_response
from app.web.current import author_of, current_service
from app.web.note import Environ
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH, Query

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
