"""StateService: charts that sequence work over many machines, asked and told over HTTP."""

from __future__ import annotations

import os
from typing import cast

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from werkzeug.middleware.proxy_fix import ProxyFix

from app import web
from app.config import Config, read_config
from app.db import Database
from app.db.engine import engine_options, normalize_url, prepare_engine
from app.models import metadata
from app.service.context import Service
from app.service.machines import Machines
from app.service.webhooks import AllowedHosts
from app.waiting.hub import Hub
from app.web.request import MAX_BODY


def create_app(config: Config | None = None) -> Flask:
    """Return the service as a WSGI application. Opens no connection and starts no thread."""
    settings = read_config(os.environ) if config is None else config
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # an attribute of Flask's default provider
    database = _open_database(app, settings)
    service = Service(
        database=database,
        hub=_open_hub(database, settings),
        default_chart=settings.default_chart,
        webhook_hosts=AllowedHosts(settings.webhook_hosts),
    )
    app.extensions["stateservice"] = service
    app.extensions["stateservice.config"] = settings
    machines = Machines(service)
    app.extensions["stateservice.machines"] = machines
    web.register(app, settings, machines)
    if settings.proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.proxy_hops, x_proto=1)  # type: ignore[method-assign]
    return app


def service_of(app: Flask) -> Service:
    """The service inside an application that `create_app` made."""
    return cast(Service, app.extensions["stateservice"])


def _open_hub(database: Database, settings: Config) -> Hub:
    is_deaf = settings.pooler and settings.listen_url is None
    return Hub(database, limit=settings.max_waiters, listen_url=settings.listen_url, is_deaf=is_deaf)


def _open_database(app: Flask, settings: Config) -> Database:
    options = engine_options(settings.database_url, pool_size=settings.pool_size, pooler=settings.pooler)
    app.config["SQLALCHEMY_DATABASE_URI"] = normalize_url(settings.database_url)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    database = SQLAlchemy(app, metadata=metadata)
    with app.app_context():
        engine = database.engine
    prepare_engine(engine)
    return Database(engine, log_key=settings.log_key.encode() if settings.log_key else None)
