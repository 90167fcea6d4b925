"""Imports go down only, one place commits, one layer opens transactions: read from the sources themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.layers import problems_in, problems_of

ROOT = Path(__file__).parent.parent


def test_sources_keep_the_layers() -> None:
    assert problems_in(ROOT) == []


BROKEN = {
    "core imports a library": ("app/core/x.py", "import yaml", "standard library alone, not yaml"),
    "core imports a layer above": ("app/core/x.py", "from app.store import rows", "app.core must not import app.store"),
    "core reads the clock": ("app/core/x.py", "from time import time", "app.core must not import time"),
    "core imports in a function": ("app/core/x.py", "def f():\n    import flask", "standard library alone, not flask"),
    "models imports the store": ("app/models.py", "import app.store", "app.models must not import app.store"),
    "models imports its neighbour": ("app/models.py", "from app import db", "app.models must not import app.db"),
    "db imports the schema": ("app/db/x.py", "from app.schema import upgrade", "app.db must not import app.schema"),
    "schema imports the store": ("app/schema.py", "from app import store", "app.schema must not import app.store"),
    "store imports its neighbour": (
        "app/store/x.py",
        "from app.chart_file import parse",
        "app.store must not import app.chart_file",
    ),
    "store imports a use case": ("app/store/x.py", "from ..service import x", "app.store must not import app.service"),
    "store commits": ("app/store/x.py", "connection.commit()", "only app.db commits"),
    "store hands commit on": ("app/store/x.py", "done = connection.commit", "only app.db commits"),
    "store begins": ("app/store/x.py", "with engine.begin() as c: pass", "only app.db begins"),
    "store opens a transaction": ("app/store/x.py", "with transaction(db): pass", "only app.service opens"),
    "service imports Flask": ("app/service/x.py", "from flask import g", "app.service must not import flask"),
    "service imports the web": ("app/service.py", "from app.web import x", "app.service must not import app.web"),
    "service commits": ("app/service/x.py", "connection.commit()", "only app.db commits"),
    "waiting imports a use case": ("app/waiting/x.py", "import app.service", "app.waiting must not import app.service"),
    "web imports the store": ("app/web/x.py", "from app.store import list_history", "must not import app.store"),
    "web imports the models": ("app/web/x.py", "from app import models", "must not import app.models"),
    "web imports SQLAlchemy": ("app/web/x.py", "import sqlalchemy.exc", "app.web must not import sqlalchemy"),
    "web imports the cli": ("app/web/x.py", "from app.cli import x", "app.web must not import app.cli"),
    "web imports the factory": ("app/web/x.py", "from app import create_app", "app.web must not import app"),
    "web imports wsgi": ("app/web/x.py", "from wsgi import app", "app.web must not import wsgi"),
    "web opens a transaction": ("app/web/x.py", "db.transaction(database)", "only app.service opens"),
    "cli imports the store": ("app/cli/x.py", "from app import store", "app.cli must not import app.store"),
    "cli takes the transaction": ("app/cli/x.py", "from app.db import transaction as t", "only app.service opens"),
    "the factory imports the cli": ("app/__init__.py", "from app import cli", "app must not import app.cli"),
    "a module without a place": ("app/helpers.py", "", "app.helpers has no layer yet"),
}


@pytest.mark.parametrize(("path", "source", "problem"), BROKEN.values(), ids=BROKEN)
def test_checker_finds_one_problem_when(path: str, source: str, problem: str) -> None:
    problems = problems_of(Path(path), source)
    assert len(problems) == 1
    assert problem in problems[0]


SOUND = {
    "core imports itself and the standard library": ("app/core/x.py", "import json\nfrom app.core.chart import Chart"),
    "core imports itself relatively": ("app/core/x.py", "from . import chart\nfrom .chart import Chart"),
    "a package imports its modules relatively": ("app/store/__init__.py", "from .rows import ChartRow"),
    "db commits": ("app/db/x.py", "connection.begin()\nconnection.commit()\ntransaction(x)"),
    "schema begins": ("app/schema.py", "from app import db, models\nimport alembic\nconnection.begin()"),
    "store imports down": ("app/store/x.py", "import sqlalchemy\nfrom app import core, db, models"),
    "service imports down and wakes": ("app/service/x.py", "from app import store, waiting\ntransaction(x)"),
    "web imports the use cases": (
        "app/web/x.py",
        "import flask\nfrom app import service, waiting\nfrom app.core import x",
    ),
    "cli takes the wired service": ("app/cli/x.py", "from app import create_app, service"),
    "the factory imports what it wires": ("app/__init__.py", "from app import config, db, service, web"),
    "wsgi imports the factory": ("wsgi.py", "from app import create_app"),
}


@pytest.mark.parametrize(("path", "source"), SOUND.values(), ids=SOUND)
def test_checker_is_content_when(path: str, source: str) -> None:
    assert problems_of(Path(path), source) == []
