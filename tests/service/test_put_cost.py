"""What a PUT reads does not grow, whatever the database knew of its tables when it planned the statements."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module
from typing import Any

import pytest

import app.store
from app.core.log import Author
from app.db import Prepared, asking
from app.service.context import Service
from app.service.put import Applied, Put, Sent, apply
from tests.service.support import alter, import_text, opened_service
from tests.support.reads import counted_reads
from tests.support.roles import as_owner

CHART = """\
current_state: a
states:
- {name: a, func: increment, current: {key: count, value: 0}, target: {name: b, when: {key: count, value: 9000}}}
- {name: b}
"""


def report(service: Service, first: int, last: int, chart: str, *, has_keys: bool) -> None:
    """Report as the machines from `first` to `last`, in one transaction."""
    names = [f"m{n}" for n in range(first, last)]
    authors = [Author(idempotency_key=sha256(name.encode()).hexdigest() if has_keys else None) for name in names]
    applied = apply(service, [Sent(chart, Put("a", name), author) for name, author in zip(names, authors, strict=True)])
    assert all(isinstance(one, Applied) and one.answer.is_yes for one in applied)


def assert_put_reads_as_much_after_400_more(service: Service, chart: str, *, has_keys: bool) -> None:
    """Fail if one PUT reads more rows than another one did 400 rows of the log before."""
    work = []
    for first, last in ((1000, 1012), (2000, 2400)):
        for n in range(first, first + 12):
            report(service, n, n + 1, chart, has_keys=has_keys)
        report(service, first + 12, last + 12, chart, has_keys=has_keys)
        with counted_reads(service) as reads:
            report(service, last + 12, last + 13, chart, has_keys=has_keys)
        work.append(reads.work)
    assert work[1] <= work[0] * 1.5, work


@pytest.mark.parametrize("has_keys", [False, True], ids=["no keys", "Idempotency-Keys"])
@pytest.mark.parametrize("known", [1, 120, 240, 400])
def test_put_reads_as_much_after_more_rows_as_the_statements_were_planned_with(
    service: Service, known: int, has_keys: bool
) -> None:
    import_text(service, CHART)
    report(service, 0, known, "web", has_keys=has_keys)
    # New sessions plan their statements: PostgreSQL settles on a plan after five uses.
    service.database.engine.dispose()
    assert_put_reads_as_much_after_400_more(service, "web", has_keys=has_keys)


@pytest.mark.parametrize("has_keys", [False, True], ids=["no keys", "Idempotency-Keys"])
def test_put_reads_as_much_on_the_one_chart_with_a_long_log_among_many_short_ones(
    service: Service, owner: Service, has_keys: bool
) -> None:
    for number in range(60):
        import_text(service, CHART, name=f"c{number}")
    analyze(owner)
    report(service, 0, 12, "c0", has_keys=has_keys)
    assert_put_reads_as_much_after_400_more(service, "c0", has_keys=has_keys)


def analyze(owner: Service) -> None:
    """Have PostgreSQL know its tables as they are now, as autovacuum does."""
    if not owner.database.is_sqlite:
        alter(owner, "ANALYZE")


# Plans


def list_statements() -> Iterator[tuple[str, str]]:
    """Yield the name of each prepared statement for PostgreSQL, and its SQL."""
    for module in pkgutil.iter_modules(app.store.__path__):
        for name, value in vars(import_module(f"app.store.{module.name}")).items():
            if isinstance(value, Prepared):
                yield f"{module.name}.{name}", value.texts["postgresql"]


def list_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan, except for those below a LIMIT that ends them after a few rows."""
    yield node
    for below in node.get("Plans", []):
        if not (node["Node Type"] == "Limit" and below["Node Type"].endswith("Index Scan")):
            yield from list_nodes(below)


def reads_everything(node: dict[str, Any]) -> bool:
    """True if the node reads a whole table."""
    kind = node["Node Type"]
    return kind == "Seq Scan" or (kind.endswith(("Index Scan", "Index Only Scan")) and "Index Cond" not in node)


@pytest.mark.parametrize("is_known", [False, True], ids=["new tables", "tables known to be small"])
def test_no_prepared_statement_reads_a_whole_table(postgresql_url: str, is_known: bool) -> None:
    with opened_service(as_owner(postgresql_url)) as owner:
        import_text(owner, CHART)
        if is_known:
            analyze(owner)
    found = {}
    with opened_service(postgresql_url) as service, asking(service.database) as connection:
        for name, statement in list_statements():
            ((plan,),) = connection.driver.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement}").fetchone()
            found[name] = [node for node in list_nodes(plan["Plan"]) if reads_everything(node)]
    assert len(found) > 30
    assert {name: nodes for name, nodes in found.items() if nodes} == {}
