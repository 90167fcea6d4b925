"""GET and PUT on a state: may I, and I did."""

from __future__ import annotations

from flask import Blueprint, Response

from app.service.ask import Question, ask
from app.service.context import find_default_chart
from app.service.update import Put, update
from app.web import parameters
from app.web.answers import answer_response
from app.web.current import current_author, current_service
from app.web.parameters import MACHINE_LENGTH, NAME_LENGTH

blueprint = Blueprint("state", __name__)

# Seconds; below the minute after which many proxies give up on a silent server.
MAX_WAIT = 55


@blueprint.get("/state", provide_automatic_options=False)
def get_default_state() -> Response:
    """May I? Asked of the default chart."""
    return _ask(None)


@blueprint.get("/charts/<chart:name>/state", provide_automatic_options=False)
def get_state(name: str) -> Response:
    """May I? 200 where the state is current, else 406."""
    return _ask(name)


@blueprint.get("/reached", provide_automatic_options=False)
def get_default_reached() -> Response:
    """Was it? Asked of the default chart."""
    return _ask(None, reached=True)


@blueprint.get("/charts/<chart:name>/reached", provide_automatic_options=False)
def get_reached(name: str) -> Response:
    """Was it? 200 where the state was entered in this run, else 406."""
    return _ask(name, reached=True)


@blueprint.put("/state", provide_automatic_options=False)
def put_default_state() -> Response:
    """I did, said to the default chart."""
    return _update(None)


@blueprint.put("/charts/<chart:name>/state", provide_automatic_options=False)
def put_state(name: str) -> Response:
    """I did: 200 where it was counted, now or before, else 406."""
    return _update(name)


def _ask(name: str | None, *, reached: bool = False) -> Response:
    query = parameters.read_query()
    question = Question(
        state=parameters.get_parameter(query, "state", NAME_LENGTH),
        machine=parameters.find_parameter(query, "machine", MACHINE_LENGTH, "X-Machine"),
        reached=reached,
    )
    wait = parameters.find_number(query, "wait", 0, MAX_WAIT) or 0
    service = current_service()
    return answer_response(ask(service, name or find_default_chart(service), question, wait))


def _update(name: str | None) -> Response:
    query = parameters.read_query()
    key = parameters.find_header("Idempotency-Key", MACHINE_LENGTH)
    put = Put(
        state=parameters.get_parameter(query, "state", NAME_LENGTH),
        machine=parameters.find_parameter(query, "machine", MACHINE_LENGTH, "X-Machine"),
        key=parameters.find_parameter(query, "key", NAME_LENGTH),
        idempotency_key=key,
    )
    service = current_service()
    return answer_response(update(service, name or find_default_chart(service), put, current_author(key)))
