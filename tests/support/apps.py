"""The application on a real database, as the tests of its interfaces need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask

from app.config import Config
from app.core.log import Author
from app.service.context import Service
from app.service.operate import Imported, ImportRequest, import_chart
from app.wiring import create_app, service_of

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = (ROOT / "charts" / "states.yaml").read_text()


def opened_app(url: str, **settings: Any) -> Iterator[Flask]:
    """Yield the application on the database at `url`, and close its connections."""
    app = create_app(Config(database_url=url, **settings))
    yield app
    app.extensions["stateservice.machines"].close()
    end_service(service_of(app))


def end_service(service: Service) -> None:
    """End the service's hub, then close its connections: a look that is under way holds one."""
    service.hub.close()
    service.hub.join(30)
    service.database.engine.dispose()


def import_text(app: Flask, text: str, name: str | None = None) -> Imported:
    """Import a chart through the service."""
    request = ImportRequest(text, name=name, default_name="states")
    return import_chart(service_of(app), request, Author(actor="test"))
