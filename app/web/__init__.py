"""The HTTP interface: one module a resource, all over the same service calls as the command line."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from app.config import Config
from app.core.chart import CHART_NAME
from app.service.machines import Machines
from app.web import auth, charts, fleetlock, observe, operate, replies, state, ui


class ChartNameConverter(BaseConverter):
    """A chart's name; any other text in its place is a path that does not exist."""

    regex = CHART_NAME.pattern


def register(app: Flask, config: Config, machines: Machines) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.strict_slashes = False
    # No redirects: a state's answer is 200, 406 or an error, and has no Location.
    app.url_map.merge_slashes = False
    for module in (operate, fleetlock, charts, observe):
        app.register_blueprint(module.blueprint)
    ui.register(app)
    observe.register(app)
    access = auth.Access(config, machines.service)
    auth.register(app, access)
    replies.register(app)
    door = state.StateDoor(config, machines, access)
    app.extensions["stateservice.door"] = door
    state.register(app, door)
