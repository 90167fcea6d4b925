"""The HTTP interface: one module a resource, all over the same service calls as the command line."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from app.core.chart import CHART_NAME
from app.web import auth, charts, fleetlock, observe, operate, replies, state, ui


class ChartNameConverter(BaseConverter):
    """A chart's name; any other text in its place is a path that does not exist."""

    regex = CHART_NAME.pattern


def register(app: Flask) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.strict_slashes = False
    # No redirects: a state's answer is 200, 406 or an error, and has no Location.
    app.url_map.merge_slashes = False
    for module in (state, operate, fleetlock, charts, observe):
        app.register_blueprint(module.blueprint)
    ui.register(app)
    observe.register(app)
    auth.register(app)
    replies.register(app)
    app.wsgi_app = state.FastLane(app)  # type: ignore[method-assign]  # as Flask has one wrap it
