"""The chart file's JSON Schema, with which editors complete and check a file while it is typed.

It describes the shape alone. Only `parse` checks whether a target exists or a threshold can be reached.
"""

from __future__ import annotations

import re

from app.chart_file.chart import FUNC_WORDS, MAX_STATES
from app.chart_file.checks import PLACES
from app.chart_file.expect import LABEL
from app.chart_file.fields import INTEGER, ISO_AGE, NAME, PERCENTAGE, SIMPLE_AGE
from app.chart_file.guards import CLOCK_KEYS, COUNTING_WORDS, ON_EXPIRE_WORDS, OP_WORDS
from app.chart_file.windows import APPROVERS, CLOCK, IMPORTER, OPEN
from app.core.chart import CHART_NAME, INT64_MAX, INT64_MIN
from app.core.promises import LIMIT, MEASURES
from app.core.window import DAYS

Schema = dict[str, object]


def json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a chart file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "StateService chart",
        "description": "A state machine that machines move on by reporting.",
        **_object(
            {
                "chart": _scalar(CHART_NAME.pattern, "The chart's name."),
                "description": _text("One line for people."),
                "current_state": _scalar(NAME.pattern, "The state that a run starts in."),
                "expect": _expect(),
                "require_machine": _flag("Whether a PUT without a machine's id is an error."),
                **_schedule(),
                "never": _one_or_many("never", "What may never happen; a chart that can do it is refused."),
                "always": _one_or_many("always", "How every run ends; a chart that can end otherwise is refused."),
                "states": {
                    "description": "The states; the first one counts as a start, too.",
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_STATES,
                    "items": {"$ref": "#/$defs/state"},
                },
            },
            required=["current_state", "states"],
        ),
        "$defs": {
            "state": _state(),
            "attribute": _attribute(),
            "target": _target(),
            "guard": _guard(),
            "never": _never(),
            "always": _always(),
            "integer": _integer(),
            "age": _age(),
            "limit": _limit(),
            "window": _window(),
            "calendar": _scalar(CHART_NAME.pattern, "A calendar's name."),
        },
    }


def _state() -> Schema:
    shape = _object(
        {
            "name": _scalar(NAME.pattern, "The state's name."),
            "description": _text("One line for people."),
            "func": {
                "description": "What an accepted PUT does; a state without it is final.",
                "enum": [*FUNC_WORDS],
            },
            "expect": _expect() | {"description": "The machines that take part in this state, if not the chart's."},
            "including": _names("States whose machines, if counted on the first attribute, are counted here, too."),
            "current": _one_or_many("attribute", "The attributes; the first is the one a plain PUT updates."),
            "reported": _reported(),
            "target": _one_or_many("target", "The transitions; the first whose guard holds is taken."),
            "slots": _slots(),
            "lease": {"description": "How long a slot is held at most.", "$ref": "#/$defs/age"},
            "on_expire": {
                "description": "What becomes of a slot whose lease has run out.",
                "enum": [*ON_EXPIRE_WORDS],
            },
            **_schedule(),
            "who": {"description": "Who reports: people, each once.", "enum": [APPROVERS]},
            "not": {"description": "Who may not, although they are approvers.", "enum": [IMPORTER]},
        },
        required=["name"],
    )
    needs = {
        "not": ["who"],
        "who": ["func"],
        "func": ["target"],
        "target": ["func"],
        "slots": ["func"],
        "lease": ["slots"],
        "on_expire": ["slots"],
    }
    is_counted = {"properties": {"func": {"enum": [*COUNTING_WORDS]}}, "required": ["func"]}
    return shape | {"dependentRequired": needs, "if": is_counted, "then": {"required": ["current"]}}


def _reported() -> Schema:
    machines = {"type": "array", "items": _machine()}
    return {
        "description": "For each attribute, the machines that its value includes; an export writes it.",
        "type": "object",
        "additionalProperties": machines,
    }


def _machine() -> Schema:
    return {"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": 255}


def _attribute() -> Schema:
    key = _scalar(NAME.pattern, "The attribute's name.") | {"not": {"enum": [*CLOCK_KEYS]}}
    return _object({"key": key, "value": {"$ref": "#/$defs/integer"}}, required=["key", "value"])


def _target() -> Schema:
    name = _scalar(NAME.pattern, "The state to move to.")
    return _object({"name": name, "when": {"$ref": "#/$defs/guard"}}, required=["name", "when"])


def _guard() -> Schema:
    properties: Schema = {
        "key": _scalar(NAME.pattern, f"An attribute of the state, or {' or '.join(map(repr, CLOCK_KEYS))}."),
        "value": {
            "description": "A number, a percentage of 'expect', an instant or a length of time.",
            "type": ["integer", "string"],
        },
        "op": {"description": "How to compare; without it, reached.", "enum": [*OP_WORDS]},
        "of": {"description": "For 'elapsed': count only the time in which the state is open.", "enum": [OPEN]},
    }
    return _object(properties, required=["key", "value"])


def _schedule() -> Schema:
    return {
        "windows": _one_or_many("window", "When machines may work here; without windows, always."),
        "except": _one_or_many("calendar", "Calendars: while one of their events lasts, it is closed."),
        "fit": _flag("Whether a claim is refused if its lease would outlast the window."),
    }


def _window() -> Schema:
    day: Schema = {"enum": [*DAYS]}
    properties: Schema = {
        "days": {
            "description": "The days on which the window opens; without them, every day.",
            "anyOf": [day, {"type": "array", "minItems": 1, "items": day}],
        },
        "from": {"description": "When it opens, local time.", "type": "string", "pattern": _whole(CLOCK.pattern)},
        "to": {
            "description": "When it closes, local time; not after 'from' means on the next day.",
            "type": "string",
            "pattern": _whole(CLOCK.pattern),
        },
        "zone": _text("An IANA time zone, or '$LABEL': the zone that this label of the machine names."),
    }
    return _object(properties, required=["from", "to"])


def _never() -> Schema:
    limit: Schema = {"type": "string", "pattern": _whole(re.sub(r"\(\?P<\w+>", "(", LIMIT.pattern))}
    state = _scalar(NAME.pattern, "At any moment of a visit of this state, or when it is entered.")
    shape = _object({**dict.fromkeys(MEASURES, limit), **dict.fromkeys(PLACES, state)}, required=[])
    return shape | {"minProperties": 2, "maxProperties": 2}


def _always() -> Schema:
    ends = _scalar(NAME.pattern, "A final state.")
    properties: Schema = {
        "ends": {"anyOf": [ends, {"type": "array", "minItems": 1, "items": ends}]},
        "within": {"description": "How long a run takes at most.", "$ref": "#/$defs/age"},
    }
    return _object(properties, required=["ends"])


def _slots() -> Schema:
    total = _one_or_many("limit", "How many machines may hold a slot at a time; a list widens as machines succeed.")
    per = {
        "description": "For each label, how many machines of each of its groups may be down.",
        "type": "object",
        "propertyNames": {"pattern": _whole(LABEL.pattern)},
        "additionalProperties": {"$ref": "#/$defs/limit"},
    }
    grouped = _object({"total": total, "per": per}, required=["total"])
    return {"description": total["description"], "anyOf": [*_forms(total), grouped]}


def _forms(schema: Schema) -> list[Schema]:
    forms = schema["anyOf"]
    assert isinstance(forms, list)
    return forms


def _names(description: str) -> Schema:
    one = _scalar(NAME.pattern, "The name of a state.")
    return {"description": description, "anyOf": [one, {"type": "array", "minItems": 1, "items": one}]}


def _looked_up() -> list[Schema]:
    value = {"type": ["string", "number", "boolean"]}
    where = {
        "description": "Labels that a machine must have: for each, one of these values.",
        "type": "object",
        "propertyNames": {"pattern": _whole(LABEL.pattern)},
        "additionalProperties": {"anyOf": [value, {"type": "array", "minItems": 1, "items": value}]},
    }
    roster = _scalar(CHART_NAME.pattern, "The roster that lists the machines.")
    reported = _names("The machines that reported in these states of this run.")
    key = _scalar(NAME.pattern, "Only those whose report is on this attribute.")
    return [
        _object({"roster": roster, "where": where}, required=["roster"]),
        _object({"reported": reported, "key": key}, required=["reported"]),
    ]


def _expect() -> Schema:
    return {
        "description": "How many machines take part, the list of their ids, a roster, or who reported before.",
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
            {"type": "string", "pattern": _whole(INTEGER.pattern)},
            {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": _machine(),
            },
            *_looked_up(),
        ],
    }


def _integer() -> Schema:
    return {
        "oneOf": [
            {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX},
            {"type": "string", "pattern": _whole(INTEGER.pattern)},
        ]
    }


def _age() -> Schema:
    # A schema's patterns are ECMAScript's, which writes named groups in another way than Python.
    pattern = re.sub(r"\(\?P<\w+>", "(", f"{SIMPLE_AGE.pattern}|{ISO_AGE.pattern}")
    return {"type": "string", "pattern": _whole(pattern)}


def _limit() -> Schema:
    return {
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
            {"type": "string", "pattern": _whole(f"{PERCENTAGE.pattern}|{INTEGER.pattern}")},
        ]
    }


def _one_or_many(definition: str, description: str) -> Schema:
    one = {"$ref": f"#/$defs/{definition}"}
    return {"description": description, "anyOf": [one, {"type": "array", "items": one}]}


def _scalar(pattern: str, description: str) -> Schema:
    # A state may be named `017` or `off`. An editor reads these as a number and a boolean, but they are text here.
    return {"description": description, "type": ["string", "number", "boolean"], "pattern": _whole(pattern)}


def _flag(description: str) -> Schema:
    return {"description": description, "enum": [True, False, "true", "false", "yes", "no", "on", "off"]}


def _text(description: str) -> Schema:
    return {"description": description, "type": ["string", "number", "boolean", "null"]}


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"
