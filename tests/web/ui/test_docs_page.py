"""The page of the API has every operation of the document, and the schema of chart files is served."""

from __future__ import annotations

import json

from flask import Flask
from flask.testing import FlaskClient

from app.web.ui.docs import list_groups
from tests.support.servers import ROOT
from tests.web.openapi import operations
from tests.web.ui.browser import Browser


def test_page_has_every_operation_of_the_document(app: Flask) -> None:
    shown = {(one.method, one.path) for group in list_groups() for one in group.operations}
    assert shown == {(method, path) for method, path, _ in operations()}

    text = Browser(app).text("/docs")

    assert "PUT /charts/{chart}/state" in text
    assert "max_loss" in text  # a parameter
    assert "406 No. The text is empty." in text


def test_page_says_types_in_words() -> None:
    fields = {
        (one.id, field.name): field for group in list_groups() for one in group.operations for field in one.fields
    }
    assert fields["getState", "wait"].type == "0 to 55"
    assert fields["postGoto", "state"].place == "body"
    assert fields["getState", "state"].is_required


def test_schema_of_chart_files_is_that_of_the_samples(client: FlaskClient) -> None:
    answer = client.get("/chart.schema.json")

    assert (answer.status_code, answer.mimetype) == (200, "application/schema+json")
    assert answer.get_json(force=True) == json.loads((ROOT / "charts" / "chart.schema.json").read_text())
