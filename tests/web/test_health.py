"""Alive, and ready."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.support.apps import opened_app


def test_healthz_is_200(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.mimetype) == (200, "application/json")


def test_readyz_is_200_when_database_is_migrated(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (200, {"ready": True})


def test_readyz_is_503_and_healthz_200_when_database_was_never_migrated(empty_database_url: str) -> None:
    for app in opened_app(empty_database_url):
        client = app.test_client()
        response = client.get("/readyz")
        assert (response.status_code, response.mimetype) == (503, "application/problem+json")
        assert "db upgrade" in response.get_json()["detail"]
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_head_answers_as_get(client: FlaskClient, path: str) -> None:
    response = client.head(path)
    assert (response.status_code, response.data) == (200, b"")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_other_methods_are_405(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
