"""schemathesis makes requests from the API's description, good ones and bad ones, and holds the answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings

from app.wiring import service_of
from tests.support.apps import SEED
from tests.support.examples import examples
from tests.support.rollouts import REBOOT, import_text
from tests.web.openapi import DOCUMENT


@pytest.fixture
def charts() -> Sequence[str]:
    return []


CONFIG = schemathesis.Config.from_path(str(Path(__file__).with_name("schemathesis.toml")))

schema = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)


@pytest.fixture
def api(app: Flask) -> Flask:
    """The service that answers."""
    # The name that the description's examples use.
    service_of(app).default_chart = "kernel-rollout"
    import_text(service_of(app), REBOOT, name="kernel-rollout")
    import_text(service_of(app), SEED, name="states")
    return app


@schema.parametrize()
@settings(
    max_examples=examples(10, few=3),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_service_answers_as_it_describes(api: Flask, case: schemathesis.Case) -> None:
    # A request that waits would be a test that waits.
    case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
    case.call_and_validate(app=api)
