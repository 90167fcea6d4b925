"""Questions about one chart share a reading, and no answer is older than its question."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import store
from app.core.errors import ChartNotFoundError, DatabaseUnavailableError
from app.service import ask as asking
from app.service.ask import Question, ask
from app.service.context import Service
from tests.service.support import CANARY, import_text, put
from tests.support.processes import until


class HeldLook:
    """Reads as the service does, counts how often, and holds the first reading until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.error: Exception | None = None
        self.has_read, self.may_end = threading.Event(), threading.Event()
        self._look = asking.look
        monkeypatch.setattr(asking, "look", self)

    def __call__(self, service: Service, name: str) -> Any:
        self.count += 1
        is_first = self.count == 1
        view = self._look(service, name)
        if is_first:
            self.has_read.set()
            assert self.may_end.wait(20)
        elif self.error is not None:
            raise self.error
        return view

    def until_waiting(self, service: Service, chart: str, count: int) -> None:
        until(lambda: len(service.looks._waiting.get(chart, ())) == count, f"{count} wait")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLook]:
    look = HeldLook(monkeypatch)
    yield look
    look.may_end.set()


def test_those_who_come_during_a_reading_share_the_next_one(service: Service, held: HeldLook) -> None:
    import_text(service, CANARY)
    with ThreadPoolExecutor() as callers:
        first = callers.submit(ask, service, "web", Question("canary"))
        assert held.has_read.wait(20)
        later = [callers.submit(ask, service, "web", Question(state)) for state in ("canary", "rollout", "nowhere")]
        held.until_waiting(service, "web", 3)
        held.may_end.set()
        assert first.result().is_yes
        assert [answer.result().is_yes for answer in later] == [True, False, False]
    assert held.count == 2


def test_answer_has_what_was_committed_before_the_question(service: Service, held: HeldLook) -> None:
    import_text(service, CANARY)
    with ThreadPoolExecutor() as callers:
        first = callers.submit(ask, service, "web", Question("canary"))
        assert held.has_read.wait(20)
        committed = put(service, "canary", machine="a").seq
        later = callers.submit(ask, service, "web", Question("canary"))
        held.until_waiting(service, "web", 1)
        held.may_end.set()
        assert first.result().seq == committed - 1
        assert later.result().seq == committed


def test_other_charts_do_not_wait(service: Service, held: HeldLook) -> None:
    for name in ("web", "db"):
        import_text(service, CANARY, name=name)
    with ThreadPoolExecutor() as callers:
        first = callers.submit(ask, service, "web", Question("canary"))
        assert held.has_read.wait(20)
        assert ask(service, "db", Question("canary")).is_yes
        assert not first.done()
        held.may_end.set()


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), ChartNotFoundError("web")])
def test_all_who_share_a_reading_hear_that_it_failed(service: Service, held: HeldLook, error: Exception) -> None:
    import_text(service, CANARY)
    held.error = error
    with ThreadPoolExecutor() as callers:
        first = callers.submit(ask, service, "web", Question("canary"))
        assert held.has_read.wait(20)
        later = [callers.submit(ask, service, "web", Question("canary")) for _ in range(3)]
        held.until_waiting(service, "web", 3)
        held.may_end.set()
        assert [type(answer.exception()) for answer in later] == [type(error)] * 3
        assert first.result().is_yes


def test_failed_look_into_the_past_fails_for_all_who_share_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_text(service, CANARY)
    view, calls = asking.look(service, "web"), []

    def fail(*arguments: object) -> bool:
        calls.append(arguments)
        raise DatabaseUnavailableError("away")

    monkeypatch.setattr(store.machines, "was_entered", fail)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            view.answer(Question("soak", reached=True))
    assert len(calls) == 1
