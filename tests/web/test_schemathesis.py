"""schemathesis makes valid and invalid requests from the API's description, and checks the answers against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from app.wiring import service_of
from tests.service.support import ROSTERED as REBOOT
from tests.service.support import import_text
from tests.support.apps import SEED
from tests.support.databases import DATABASES
from tests.support.examples import IS_ALL, examples
from tests.web.openapi import DOCUMENT, operations


# PostgreSQL refuses more than SQLite does, so that it finds more.
@pytest.fixture(params=DATABASES if IS_ALL else ["postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def charts() -> Sequence[str]:
    return []


CONFIG = schemathesis.Config.from_path(str(Path(__file__).with_name("schemathesis.toml")))

schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


@pytest.fixture
def api(app: Flask) -> Flask:
    """The service with one chart."""
    # The examples in the description use this name.
    service_of(app).default_chart = "kernel-rollout"
    import_text(service_of(app), REBOOT, name="kernel-rollout")
    import_text(service_of(app), SEED, name="states")
    return app


@settings(
    max_examples=examples(10, few=3),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def call(api: Flask, case: schemathesis.Case) -> None:
    # Without waits, or the test would wait too.
    case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
    case.call_and_validate(app=api)


# `schema.parametrize()` would make all requests of all operations while pytest collects, in each of its processes.
@pytest.mark.hypothesis
@pytest.mark.parametrize(("method", "path"), sorted((method, path) for method, path, _ in operations()))
def test_service_answers_as_described(api: Flask, method: str, path: str) -> None:
    try_operation = build_operation_test(
        config=schema.config,
        operation=schema[path][method],
        test_func=call,
        given_kwargs={},
        feedback=FeedbackSources(),
    )
    try_operation(api=api)
