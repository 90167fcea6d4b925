"""The API's description for the tests: its operations, and a check that an answer fits it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from flask import Flask
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from werkzeug.test import TestResponse

from app.web.observe import read_document

METHODS = {"get", "put", "post", "delete"}
# Pages for people, and what they load.
PEOPLE = ("/static/", "/ui/", "/docs")

DOCUMENT: dict[str, Any] = json.loads(read_document())


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of every operation."""
    for path, item in DOCUMENT["paths"].items():
        for method in item.keys() & METHODS:
            yield method.upper(), path, item[method]


def routes(app: Flask) -> set[tuple[str, str]]:
    """The method and the path of every route for programs. The path is written as in OpenAPI."""
    found = set()
    for rule in app.url_map.iter_rules():
        if rule.rule == "/" or rule.rule.startswith(PEOPLE):
            continue
        path = re.sub(r"<[^:>]+:name>", "{chart}", rule.rule)
        path = re.sub(r"<[^:>]+:([^>]+)>", r"{\1}", path)
        found |= {(method, path) for method in (rule.methods or set()) - {"HEAD"}}
    return found


def resolve(item: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` of the document stands for; anything else is returned as it is."""
    while "$ref" in item:
        found: Any = DOCUMENT
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def _closed(schema: Any) -> Any:
    """The schema with absolute references, which allows in an object only the properties that it names."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A schema that is a part of another schema must allow the properties of the other parts.
    closed = {key: _opened(value) if key == "allOf" else _closed(value) for key, value in schema.items()}
    if "$ref" in schema:
        closed["$ref"] = NAME + schema["$ref"]
    if schema.get("$ref") == "#/components/schemas/Status" or (
        "properties" in schema and schema is not STATUS and "additionalProperties" not in schema
    ):
        closed["unevaluatedProperties"] = False
    return closed


def _opened(parts: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"$ref": NAME + part["$ref"]} for part in parts]


NAME = "urn:api"
# The schemas that Imported consists of.
STATUS = DOCUMENT["components"]["schemas"]["Status"]
REGISTRY: Registry[Any] = Registry().with_resource(
    NAME, Resource.from_contents({"components": _closed(DOCUMENT["components"])}, DRAFT202012)
)


def assert_fits(method: str, path: str, response: TestResponse) -> None:
    """Fail unless the document gives the answer's status, media type and shape for this operation."""
    operation = DOCUMENT["paths"][path][method.lower()]
    status = str(response.status_code)
    assert status in operation["responses"], f"{method} {path} answered {status}: {response.text[:200]}"
    described = resolve(operation["responses"][status])
    assert response.mimetype in described["content"], f"{method} {path} {status} is {response.mimetype}"
    for name in described.get("headers", {}):
        assert name in response.headers
    schema = described["content"][response.mimetype]["schema"]
    body = _read(response)
    Draft202012Validator(_closed(schema), registry=REGISTRY).validate(body)


def _read(response: TestResponse) -> Any:
    if response.mimetype == "application/yaml":
        return yaml.safe_load(response.text)
    return json.loads(response.text) if response.mimetype.endswith(("/json", "+json")) else response.text
