"""All the pages together."""

from __future__ import annotations

from flask import Flask

from app.web.ui import acts, chart, imports, index, login, session, tokens
from app.web.ui.base import blueprint

# Imported for their routes.
VIEWS = (acts, chart, imports, index, login, tokens)


def register(app: Flask) -> None:
    """Add the pages to `app`."""
    session.register(app)
    app.register_blueprint(blueprint)
