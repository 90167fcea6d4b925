"""The pages for people: server-rendered, over the same service calls as everything else."""

from __future__ import annotations

from flask import Flask

from app.web.ui import accounts, chart, imports, index
from app.web.ui.base import blueprint

# Imported for their routes.
VIEWS = (accounts, chart, imports, index)


def register(app: Flask) -> None:
    """Add the pages to `app`."""
    app.register_blueprint(blueprint)
