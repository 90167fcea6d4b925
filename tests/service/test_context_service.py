"""The default chart, and the cache of definitions."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, event

from app import store
from app.core.errors import NoDefaultChartError, VersionNotFoundError
from app.db import asking
from app.service import operate
from app.service.context import Definitions, Service, find_default_chart
from tests.service.support import ANN, CANARY, get_row, import_text

# The default chart


def test_default_is_the_only_chart_there_is(service: Service) -> None:
    import_text(service, CANARY, name="only")
    assert find_default_chart(service) == "only"


def test_default_is_the_one_configured_among_several(service: Service) -> None:
    for name in ("a", "b"):
        import_text(service, CANARY, name=name)
    service.default_chart = "b"
    assert find_default_chart(service) == "b"


@pytest.mark.parametrize(("names", "found"), [([], "there is none"), (["a", "b"], "there are several")])
def test_default_is_an_error_where(service: Service, names: list[str], found: str) -> None:
    for name in names:
        import_text(service, CANARY, name=name)
    with pytest.raises(NoDefaultChartError, match=found):
        find_default_chart(service)


def test_archived_charts_do_not_count(service: Service) -> None:
    for name in ("a", "b"):
        import_text(service, CANARY, name=name)
    operate.archive(service, "a", "over", ANN)
    assert find_default_chart(service) == "b"


# The cache of definitions


class Statements:
    """Counts the statements that read a definition's states."""

    def __init__(self, service: Service) -> None:
        self.count = 0
        event.listen(service.database.engine, "before_cursor_execute", self.note)

    def note(self, connection: Connection, cursor: object, statement: str, *rest: object) -> None:
        self.count += "FROM chart_versions" in statement


def get(service: Service, definitions: Definitions, version: int = 1, chart: str = "web") -> object:
    with asking(service.database) as connection:
        return definitions.get_version(connection, get_row(service, chart), version)


def test_definition_is_read_once(service: Service) -> None:
    import_text(service, CANARY)
    statements, definitions = Statements(service), Definitions()
    first, second = get(service, definitions), get(service, definitions)
    assert first is second
    assert statements.count == 1


def test_definition_is_what_was_imported(service: Service) -> None:
    import_text(service, CANARY)
    with asking(service.database) as connection:
        chart = service.definitions.get(connection, get_row(service))
    assert (chart.name, chart.initial, list(chart.states)) == ("web", "canary", ["canary", "soak", "rollback", "done"])


def test_definitions_of_versions_are_kept_apart(service: Service) -> None:
    import_text(service, CANARY)
    import_text(service, CANARY.replace("value: 5", "value: 6"))
    definitions = Definitions()
    assert get(service, definitions, 1) != get(service, definitions, 2)


def test_definition_of_a_version_that_never_was_is_an_error(service: Service) -> None:
    import_text(service, CANARY)
    with pytest.raises(VersionNotFoundError):
        get(service, Definitions(), 9)


def test_least_lately_used_go_past_the_limit_of_states(service: Service) -> None:
    for name in ("a", "b", "c"):
        import_text(service, CANARY, name=name)
    statements, definitions = Statements(service), Definitions(max_states=8)
    for name in ("a", "b", "a", "c", "a", "b"):
        get(service, definitions, chart=name)
    assert statements.count == 4


def test_chart_larger_than_the_limit_is_kept_alone(service: Service) -> None:
    import_text(service, CANARY)
    statements, definitions = Statements(service), Definitions(max_states=1)
    get(service, definitions)
    get(service, definitions)
    assert statements.count == 1


def test_definitions_are_safe_among_threads(service: Service) -> None:
    import_text(service, CANARY)
    row, definitions, found = get_row(service), Definitions(max_states=4), []

    def read() -> None:
        with asking(service.database) as connection:
            found.extend(definitions.get_version(connection, row, 1) for _ in range(50))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert all(chart == found[0] for chart in found)


def test_definitions_read_the_store_s_own(service: Service) -> None:
    import_text(service, CANARY)
    with asking(service.database) as connection:
        loaded = store.definitions.load_chart(connection, get_row(service).id, "web", 1)
    assert get(service, Definitions()) == loaded
