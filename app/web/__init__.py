"""The HTTP interface: one module a resource, all over the same service calls as the command line."""

from __future__ import annotations

from flask import Flask

from app.web import acts, auth, charts, curl, fleetlock, health, history, machines, problems, slots, state
from app.web.converters import ChartNameConverter


def register(app: Flask) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.strict_slashes = False
    # No redirects: a state's answer is 200, 406 or an error, and has no Location.
    app.url_map.merge_slashes = False
    for module in (state, slots, fleetlock, curl, charts, machines, history, acts, health):
        app.register_blueprint(module.blueprint)
    auth.register(app)
    problems.register(app)
