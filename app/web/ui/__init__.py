"""The pages for people, rendered on the server over the same service calls as the HTTP interface."""

from __future__ import annotations

from flask import Flask

from app.web.ui import accounts, chart, docs, imports, index, subscriptions, what_if
from app.web.ui.base import blueprint

# They are imported because that adds their routes to the blueprint.
VIEWS = (accounts, chart, docs, imports, index, subscriptions, what_if)


def register(app: Flask) -> None:
    """Add the pages to `app`."""
    app.register_blueprint(blueprint)
