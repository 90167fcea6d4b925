"""One layer commits, one layer opens transactions, and the core needs the standard library alone.

`lint-imports` holds the other rules of the layers (pyproject.toml).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.apps import ROOT


def commits(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "commit"


def begins(node: ast.AST) -> bool:
    # `with engine.begin()` commits without the word.
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "begin"


def opens_transaction(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "app.db" and "transaction" in {alias.name for alias in node.names}
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "transaction"


def imports_library(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "app"] if node.level == 0 else ["app"]
    else:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return bool({name.split(".")[0] for name in names} - sys.stdlib_module_names - {"app"})


# What is done, and where alone it may be done: by the names of folders and modules of app/.
RULES: dict[str, tuple[Callable[[ast.AST], bool], Callable[[str], bool]]] = {
    "only db commits": (commits, lambda layer: layer == "db"),
    "only db and schema begin a transaction": (begins, lambda layer: layer in ("db", "schema")),
    "only service opens transactions": (opens_transaction, lambda layer: layer in ("service", "db")),
    "core imports the standard library alone": (imports_library, lambda layer: layer != "core"),
}


def offenders(does: Callable[[ast.AST], bool], may: Callable[[str], bool], folder: Path) -> Iterator[str]:
    """Yield where a module of `folder` does what its layer may not do."""
    for path in sorted(folder.rglob("*.py")):
        layer = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if does(node) and not may(layer):
                yield f"{path.relative_to(folder)}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize(("does", "may"), RULES.values(), ids=RULES)
def test_source_keeps_the_rule(does: Callable[[ast.AST], bool], may: Callable[[str], bool]) -> None:
    assert list(offenders(does, may, ROOT / "app")) == []


BROKEN = {
    "only db commits": ("store/x.py", "done = connection.commit"),
    "only db and schema begin a transaction": ("store/x.py", "with engine.begin() as c: pass"),
    "only service opens transactions": ("web/x.py", "with db.transaction(database): pass"),
    "core imports the standard library alone": ("core/x.py", "def f():\n    import flask"),
}


@pytest.mark.parametrize("rule", RULES)
def test_broken_rule_is_found(tmp_path: Path, rule: str) -> None:
    name, source = BROKEN[rule]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(source)
    assert len(list(offenders(*RULES[rule], tmp_path))) == 1
