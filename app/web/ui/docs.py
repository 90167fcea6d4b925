"""The page of the API's description: every route with its parameters and answers, from the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from flask import Response

from app.web.observe import read_document
from app.web.ui.base import blueprint, render

METHODS = ("get", "put", "post", "delete")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a form of a body: its name, where it stands, its type in a few words, and what it means."""

    name: str
    place: str
    type: str
    meaning: str
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    fields: tuple[Field, ...]
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one tag."""

    name: str
    description: str
    operations: tuple[Operation, ...]


@blueprint.get("/docs", provide_automatic_options=False)
def get_docs() -> Response:
    """Every route of the HTTP interface, as a page."""
    return render("docs.html", groups=list_groups())


@cache
def list_groups() -> tuple[Group, ...]:
    """Return the operations of the OpenAPI document, by tag, in the order of the document."""
    document = json.loads(read_document())
    operations = [
        (operation["tags"][0], _read_operation(document, path, item, method, operation))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    return tuple(
        Group(tag["name"], tag["description"], tuple(one for name, one in operations if name == tag["name"]))
        for tag in document["tags"]
    )


def _read_operation(
    document: Any, path: str, item: Mapping[str, Any], method: str, operation: Mapping[str, Any]
) -> Operation:
    parameters = [_resolve(document, one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))]
    fields = [
        Field(
            one["name"],
            one["in"],
            _say_type(document, one["schema"]),
            one.get("description", ""),
            one.get("required", False),
        )
        for one in parameters
    ]
    answers = ((status, _resolve(document, answer)) for status, answer in operation["responses"].items())
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        description=operation.get("description", ""),
        fields=(*fields, *_read_body(document, operation)),
        answers=tuple((status, answer["description"]) for status, answer in answers),
    )


def _read_body(document: Any, operation: Mapping[str, Any]) -> Iterator[Field]:
    body = _resolve(document, operation.get("requestBody", {}))
    for media, content in body.get("content", {}).items():
        schema = _resolve(document, content.get("schema", {}))
        yield Field("body", media, "", body.get("description", ""), body.get("required", False))
        for name, found in schema.get("properties", {}).items():
            own = _resolve(document, found)
            is_required = name in schema.get("required", ())
            yield Field(name, "body", _say_type(document, own), own.get("description", ""), is_required)


def _resolve(document: Any, item: Any) -> Any:
    """Return what `item` is, or refers to."""
    while "$ref" in item:
        found = document
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def _say_type(document: Any, schema: Any) -> str:
    own = _resolve(document, schema)
    if "enum" in own:
        return " | ".join(map(str, own["enum"]))
    if "anyOf" in own or "oneOf" in own:
        return " | ".join(dict.fromkeys(_say_type(document, one) for one in own.get("anyOf", own.get("oneOf"))))
    kind = own.get("type", "any")
    said = " | ".join(kind) if isinstance(kind, list) else str(kind)
    if said == "integer" and "minimum" in own and "maximum" in own:
        return f"{own['minimum']} to {own['maximum']}"
    if said == "array":
        return f"list of {_say_type(document, own.get('items', {}))}"
    return f"{said}, {own['format']}" if "format" in own else said
