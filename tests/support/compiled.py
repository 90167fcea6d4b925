"""What a server compiles once, and each of the thousands of applications of the tests would compile again.

The routes, the templates and the SQL of all applications are the same, so this process keeps what was compiled.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from sqlalchemy import Engine
from werkzeug.routing import Rule

# Werkzeug: two functions for each route.

_compile_route = Rule._compile_builder
_routes: dict[tuple[object, ...], Any] = {}


def _compile_route_once(rule: Rule, append_unknown: bool = True) -> Any:
    key = (append_unknown, rule.rule, tuple(rule._trace), str(rule.defaults))
    if key not in _routes:
        _routes[key] = _compile_route(rule, append_unknown)
    return _routes[key]


Rule._compile_builder = _compile_route_once  # type: ignore[method-assign]


# Jinja: a module for each template.


class _Templates(BytecodeCache):
    def __init__(self) -> None:
        self._codes: dict[tuple[object, ...], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get(self._key_of(bucket))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[self._key_of(bucket)] = bucket.code

    def _key_of(self, bucket: Bucket) -> tuple[object, ...]:
        # What decides whether a template escapes is compiled into it. In Flask it is a method of each application.
        escapes = bucket.environment.autoescape
        return bucket.key, bucket.checksum, getattr(escapes, "__func__", escapes)


Flask.jinja_options = {"bytecode_cache": _Templates()}


# SQLAlchemy: the SQL of each statement.


class _Statements(dict[tuple[object, ...], Any]):
    """The statements of all engines of one kind. A key begins with the engine's own dialect, which is left out."""

    def get(self, key: tuple[object, ...], default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: tuple[object, ...], value: Any) -> None:
        super().__setitem__(key[1:], value)


_statements: dict[str, _Statements] = defaultdict(_Statements)


def _take(engine: Engine, own: object) -> None:
    """An engine makes a memory of its own, which is dropped."""


Engine._compiled_cache = property(lambda engine: _statements[engine.dialect.name], _take)  # type: ignore[assignment]
