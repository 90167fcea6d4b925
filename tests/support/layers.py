"""Reads a source's imports with `ast` and says where they break the rule that imports go down only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# From the bottom up; a module may import what is below it, and itself. A new module of `app` gets its place here.
RANKS = {
    "app.core": 0,
    "app.models": 1,
    "app.db": 1,
    "app.config": 1,
    "app.logs": 1,
    "app.schema": 1,
    "app.store": 2,
    "app.chart_file": 2,
    "app.diagram": 1,
    "app.service": 3,
    "app.waiting": 3,
    "app.web": 4,
    "app.cli": 4,
    "app.serving": 4,
    "app.wiring": 5,
    "app": 0,
    "wsgi": 6,
}

# What may be imported though it is not below: a migration needs an engine and the models, a use case wakes the
# waiters once it has committed, and a command takes its service from the one place that wires it.
ALLOWED = {
    ("app.schema", "app.db"),
    ("app.schema", "app.models"),
    ("app.service", "app.waiting"),
    ("app.cli", "app.wiring"),
    ("app.serving", "app.waiting"),
}

FORBIDDEN = {
    # The other half of a circle.
    "app.wiring": ("app.cli",),
    "app.web": ("app.store", "app.models", "sqlalchemy", "alembic", "psycopg", "sqlite3"),
    "app.cli": ("app.store", "app.models", "sqlalchemy", "alembic", "psycopg", "sqlite3"),
    "app.service": ("flask", "werkzeug"),
    # Time, chance and identity come in as arguments.
    "app.core": ("io", "logging", "os", "pathlib", "random", "secrets", "socket", "subprocess", "time", "uuid"),
}

COMMITTERS = {"app.db"}
# `with engine.begin()` commits without the word.
BEGINNERS = {"app.db", "app.schema"}


def problems_in(root: Path) -> list[str]:
    """Return every broken rule of `app/` and `wsgi.py` under `root`, as `path:line: what`."""
    paths = [*sorted((root / "app").rglob("*.py")), *sorted(root.glob("wsgi.py"))]
    return [problem for path in paths for problem in problems_of(path.relative_to(root), path.read_text())]


def problems_of(path: Path, source: str) -> list[str]:
    """Return the rules that the module at `path`, with the text `source`, breaks."""
    module = module_name(path)
    layer = layer_of(module)
    if layer is None:
        return [f"{path}:1: {module} has no layer yet: give it one in {Path(__file__).name}"]
    tree = ast.parse(source)
    found = [*import_problems(layer, imports_of(module, path.stem == "__init__", tree)), *call_problems(layer, tree)]
    return [f"{path}:{line}: {what}" for line, what in sorted(found)]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str | None:
    """Return the layer that `module` belongs to; None for one of ours that has none, or for a library."""
    top = ".".join(module.split(".")[:2])
    return top if top in RANKS else None


def imports_of(module: str, is_package: bool, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every import, in functions too; `from app import x` is an import of `app.x`."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def base_of(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parents = package.split(".")
    above = parents[: len(parents) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def import_problems(layer: str, imports: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for line, name in imports:
        for forbidden in FORBIDDEN.get(layer, ()):
            if is_within(name, forbidden):
                yield line, f"{layer} must not import {forbidden}"
        if name == "app" or name.startswith(("app.", "wsgi")):
            yield from own_import_problems(layer, line, name)
        elif layer == "app.core" and name.split(".")[0] not in sys.stdlib_module_names:
            yield line, f"app.core imports the standard library alone, not {name.split('.')[0]}"
        if name == "app.db.transaction" and layer != "app.service":
            yield line, "only app.service opens transactions"


def own_import_problems(layer: str, line: int, name: str) -> Iterator[tuple[int, str]]:
    # A name that is no layer is something that app/__init__.py defines.
    target = layer_of(name) or ("wsgi" if name.startswith("wsgi") else "app")
    if target == layer or (layer, target) in ALLOWED or RANKS[target] < RANKS[layer]:
        return
    yield line, f"imports go down only: {layer} must not import {target}"


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def call_problems(layer: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "commit" and layer not in COMMITTERS:
            yield node.lineno, "only app.db commits"
        if isinstance(node, ast.Call):
            yield from opening_problems(layer, node)


def opening_problems(layer: str, call: ast.Call) -> Iterator[tuple[int, str]]:
    name = called_name(call)
    if name == "begin" and layer not in BEGINNERS:
        yield call.lineno, "only app.db begins a transaction"
    if name == "transaction" and layer not in {"app.service", "app.db"}:
        yield call.lineno, "only app.service opens transactions"


def called_name(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else None
