"""The HTTP interface: a module for each kind of resource, all over the same service calls as the command line."""

from __future__ import annotations

from functools import partial

from flask import Flask
from flask import request as flask_request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.routing import BaseConverter

from app.config import Config
from app.core.chart import CHART_NAME
from app.core.errors import StateServiceError
from app.service.machines import Machines
from app.web import (
    admin,
    auth,
    charts,
    fleetlock,
    observe,
    operate,
    replies,
    rosters,
    state,
    ui,
)
from app.web.request import ERROR, MAX_BODY, MAX_DIGITS, MAX_INT, MAX_ROSTER_BODY, TOO_LARGE, check_known, read_query


class NumberConverter(BaseConverter):
    """A whole number. One that no database holds is answered 400: it is no number of anything."""

    regex = r"[0-9]+"

    def to_python(self, value: str) -> int:
        """Return the number. Raises werkzeug's BadRequest, which Flask answers once the request is known."""
        number = int(value[-MAX_DIGITS:]) if len(value.lstrip("0")) <= MAX_DIGITS else MAX_INT + 1
        if number > MAX_INT:
            raise BadRequest(
                f"the number {value[:MAX_DIGITS]}{'…' * (len(value) > MAX_DIGITS)} in the path is too large"
            )
        return number


class ChartNameConverter(BaseConverter):
    """A chart's name; any other text in its place is a path that does not exist."""

    regex = CHART_NAME.pattern


def register(app: Flask, config: Config, machines: Machines) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.converters["number"] = NumberConverter
    app.url_map.strict_slashes = False
    # No redirects: a state's answer is 200, 406 or an error, and has no Location.
    app.url_map.merge_slashes = False
    for module in (operate, fleetlock, charts, rosters, observe):
        app.register_blueprint(module.blueprint)
    for blueprint in (rosters.calendars_blueprint, admin.subscriptions_blueprint, admin.tokens_blueprint):
        app.register_blueprint(blueprint)
    ui.register(app)
    observe.register(app)
    app.before_request(partial(auth.check_before_view, config))
    access = auth.Access(config, machines.service)
    auth.register(app, access)
    app.before_request(raise_error_of_event_loop)
    app.before_request(refuse_large_body)
    app.before_request(refuse_unknown_parameters)
    replies.register(app)
    door = state.StateDoor(config, machines, access)
    app.extensions["stateservice.door"] = door
    state.register(app, door)


# The parameters of the routes that have any; a route that is not listed has none. The pages read their own.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "charts.put_chart": ("dry_run", "map"),
    "charts.get_chart": ("at",),
    "charts.get_runs": ("limit", "before"),
    "charts.get_verify": ("expect",),
    "charts.get_history": ("after", "limit", "kind", "machine", "since", "until", "wait", "format"),
    "charts.get_machines": ("state", "run", "visit", "key", "is", "after", "limit", "format"),
    "operate.post_goto": ("dry_run",),
    "operate.post_reset": ("dry_run",),
    "operate.post_archive": ("dry_run",),
    "subscriptions.get_deliveries": ("limit",),
    "charts.get_diagram": ("format", "theme"),
    "charts.get_can": ("state", "machine", "wait", "run", "again"),
    "tokens.post_enrol": ("machine", "expires"),
    "charts.get_did": ("state", "machine", "key", "run"),
    "rosters.get_roster": ("where",),
    "rosters.get_roster_version": ("where",),
    "rosters.get_roster_diff": ("from", "to"),
    "rosters.put_roster": ("dry_run", "max_loss"),
}


def raise_error_of_event_loop() -> None:
    """Raise the error that the event loop met on the way to the view, if it met one."""
    error: StateServiceError | None = flask_request.environ.get(ERROR)
    if error is not None:
        raise error


def refuse_large_body() -> None:
    """Raise RequestEntityTooLarge before the view does anything, whether or not it reads a body.

    The server leaves the rest of a large body unread, and so the client may not see the answer: it must not take what
    was done for a failure.
    """
    # The forms of the pages have limits of their own.
    if flask_request.endpoint is None or flask_request.blueprint == "ui":
        return
    limit = MAX_ROSTER_BODY if flask_request.endpoint == "rosters.put_roster" else MAX_BODY
    if (flask_request.content_length or 0) > limit:
        raise RequestEntityTooLarge(TOO_LARGE.format(limit))


def refuse_unknown_parameters() -> None:
    """Raise BadRequestError if the request has a parameter that its route does not know."""
    if flask_request.blueprint not in (None, "ui"):
        check_known(read_query().names, PARAMETERS.get(flask_request.endpoint or "", ()))
