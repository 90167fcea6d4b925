"""The HTTP interface: one module a resource, all over the same service calls as the command line."""

from __future__ import annotations

from flask import Flask

from app.web import acts, auth, charts, curl, health, history, machines, problems, state
from app.web.converters import ChartNameConverter


def register(app: Flask) -> None:
    """Add every route and error handler to `app`."""
    app.url_map.converters["chart"] = ChartNameConverter
    app.url_map.strict_slashes = False
    for module in (state, curl, charts, machines, history, acts, health):
        app.register_blueprint(module.blueprint)
    auth.register(app)
    problems.register(app)
