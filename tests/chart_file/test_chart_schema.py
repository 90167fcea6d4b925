"""The JSON Schema accepts the samples and refuses common mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.chart_file import json_schema
from tests.chart_file.support import CHARTS, SAMPLES, SEED


def test_json_schema_is_the_file_that_editors_load() -> None:
    assert json.loads((CHARTS / "chart.schema.json").read_text()) == json_schema()


def test_json_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_json_schema_accepts_a_sample(path: Path) -> None:
    Draft202012Validator(json_schema()).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_names_the_schema_in_its_first_line(path: Path) -> None:
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=chart.schema.json"


MISTAKES = {
    "unknown key": ("current: {key", "currnt: {key"),
    "unknown func": ("increment", "incremnt"),
    "word for a value": ("value: 0", "value: zero"),
    "clock as an attribute": ("{key: count, value: 0}", "{key: clock, value: 0}"),
    "bad name": ("name: green_state", "name: green/state"),
    "no target": ("target: {name: blue_state, when: {key: count, value: 1}}", "description: x"),
    "lease without slots": ("func: increment", "func: increment\n    lease: 5m"),
}


@pytest.mark.parametrize(("right", "wrong"), MISTAKES.values(), ids=MISTAKES.keys())
def test_json_schema_refuses_a_mistake(right: str, wrong: str) -> None:
    assert right in SEED
    assert not Draft202012Validator(json_schema()).is_valid(yaml.safe_load(SEED.replace(right, wrong)))
