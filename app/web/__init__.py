"""The HTTP interface: one module a resource, all over the same service calls as the command line."""

from __future__ import annotations

from flask import Flask

from app.web import (
    access,
    acts,
    auth,
    charts,
    curl,
    diagram,
    fleetlock,
    health,
    history,
    machines,
    metrics,
    openapi,
    problems,
    slots,
    state,
)
from app.web.converters import ChartNameConverter
from app.web.fastlane import FastLane
from app.web.ui import site


def register(app: Flask) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.strict_slashes = False
    # No redirects: a state's answer is 200, 406 or an error, and has no Location.
    app.url_map.merge_slashes = False
    for module in (state, slots, fleetlock, curl, charts, machines, history, diagram, acts, health, metrics, openapi):
        app.register_blueprint(module.blueprint)
    site.register(app)
    access.register(app)
    auth.register(app)
    problems.register(app)
    app.wsgi_app = FastLane(app)  # type: ignore[method-assign]  # as Flask has one wrap it
