"""What is called after a commit hears of each use case that wrote log rows, once, when the rows can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.errors import BadRequestError, ChartFileError, ConflictError, ReasonRequiredError
from app.core.position import Step
from app.service import operate
from app.service.context import Service
from app.service.put import sweep, tick
from tests.service.support import ANN, CANARY, NOBODY, REBOOT, Clock, get_row, import_text, put
from tests.support import requests

UseCase = Callable[[Service], object]


class Told:
    """Notes what it is told after each commit: the chart, its last committed log row, and the kinds of the rows."""

    def __init__(self, service: Service) -> None:
        self.heard: list[tuple[str, int, list[str]]] = []
        self._service = service
        service.after_commit += (self.note,)

    def note(self, chart: str, step: Step) -> None:
        # Another connection reads the row, so it sees only what is committed.
        seq = get_row(self._service, chart).seq
        self.heard.append((chart, seq, [str(entry.kind) for entry in step.entries]))


def pause(service: Service) -> None:
    operate.pause(service, "web", "look", ANN)


def archive(service: Service) -> None:
    operate.archive(service, "web", "over", ANN)


def claim(service: Service) -> None:
    requests.claim(service, "reboot", "reboot", "m1", NOBODY)


WRITING: dict[str, tuple[list[UseCase], UseCase, list[str]]] = {
    "import": ([], lambda service: import_text(service, CANARY, name="other"), ["import"]),
    "import of an archived chart": ([archive], lambda service: import_text(service, CANARY), ["import"]),
    "upgrade": ([], lambda service: import_text(service, CANARY.replace("value: 2", "value: 3")), ["upgrade"]),
    "pause": ([], pause, ["pause"]),
    "resume": ([pause], lambda service: operate.resume(service, "web", "on", ANN), ["resume"]),
    "reset": ([], lambda service: operate.reset(service, "web", "again", ANN), ["reset"]),
    "goto": ([], lambda service: operate.goto(service, "web", "soak", "there", ANN), ["goto"]),
    "archive": ([], lambda service: operate.archive(service, "web", "over", ANN), ["archive"]),
    "evict": ([claim], lambda service: operate.evict(service, "reboot", "m1", "gone", ANN), ["evict"]),
    "put": ([], lambda service: put(service, "canary", "m1"), ["update"]),
    "put that moves": (
        [lambda service: put(service, "canary")],
        lambda service: put(service, "canary"),
        ["transition"],
    ),
    "claim": ([], claim, ["claim"]),
    "release": ([claim], lambda service: requests.release(service, "reboot", "reboot", "m1", NOBODY), ["release"]),
}


@pytest.fixture(autouse=True)
def charts(service: Service) -> None:
    import_text(service, CANARY)
    import_text(service, REBOOT, name="reboot")


@pytest.mark.parametrize(("past", "use_case", "kinds"), WRITING.values(), ids=WRITING)
def test_hook_is_called_once_after_the_commit(
    service: Service, past: list[UseCase], use_case: UseCase, kinds: list[str]
) -> None:
    for before in past:
        before(service)
    seqs = {name: get_row(service, name).seq for name in ("web", "reboot")}
    told = Told(service)
    use_case(service)
    ((chart, seq, heard),) = told.heard
    assert (seq, heard) == (seqs.get(chart, 0) + len(kinds), kinds)


@pytest.mark.parametrize("move_on", [lambda service: tick(service, "web"), sweep], ids=["tick", "sweep"])
def test_hook_is_called_once_after_a_clock_transition(service: Service, clock: Clock, move_on: UseCase) -> None:
    operate.goto(service, "web", "soak", "there", ANN)
    told = Told(service)
    clock.advance(60)
    move_on(service)
    assert told.heard == [("web", 3, ["timeout"])]


QUIET: dict[str, UseCase] = {
    "dry run of an import": lambda service: import_text(service, CANARY, name="other", dry_run=True),
    "dry run of an upgrade": lambda service: import_text(service, CANARY.replace("value: 2", "value: 3"), dry_run=True),
    "the same file again": lambda service: import_text(service, CANARY),
    "put on another state": lambda service: put(service, "soak"),
    "tick with nothing due": lambda service: tick(service, "web"),
    "sweep with nothing due": sweep,
    "release without a slot": lambda service: requests.release(service, "reboot", "reboot", "m1", NOBODY),
}


@pytest.mark.parametrize("use_case", QUIET.values(), ids=QUIET)
def test_hook_is_not_called_if_nothing_is_written(service: Service, use_case: UseCase) -> None:
    told = Told(service)
    use_case(service)
    assert told.heard == []


REFUSED: dict[str, tuple[UseCase, type[Exception]]] = {
    "import with a problem": (lambda service: import_text(service, "chart: ["), ChartFileError),
    "upgrade without a home": (
        lambda service: import_text(service, CANARY.replace("canary", "first")),
        ConflictError,
    ),
    "act without a reason": (lambda service: operate.reset(service, "web", " ", ANN), ReasonRequiredError),
    "goto an unknown state": (lambda service: operate.goto(service, "web", "no", "why", ANN), BadRequestError),
    "evict without a slot": (lambda service: operate.evict(service, "reboot", "m1", "gone", ANN), ConflictError),
    "put with an unknown key": (lambda service: put(service, "canary", key="no"), BadRequestError),
}


@pytest.mark.parametrize(("use_case", "error"), REFUSED.values(), ids=REFUSED)
def test_hook_is_not_called_if_the_request_is_refused(
    service: Service, use_case: UseCase, error: type[Exception]
) -> None:
    told = Told(service)
    with pytest.raises(error):
        use_case(service)
    assert told.heard == []


def test_waiters_are_woken_before_other_hooks(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(service.hub, "tell", lambda chart: calls.append(f"waiters of {chart}"))
    service.after_commit += (lambda chart, step: calls.append(f"hook of {chart}"),)
    pause(service)
    assert calls == ["waiters of web", "hook of web"]


def test_upgrade_wakes_the_waiters_of_the_chart(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr(service.hub, "tell", woken.append)
    import_text(service, CANARY.replace("value: 2", "value: 3"))
    assert woken == ["web"]


def test_error_of_a_hook_is_logged_and_the_others_are_called(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(chart: str, step: Step) -> None:
        raise RuntimeError("the subscriber is away")

    service.after_commit += (fail,)
    told = Told(service)
    assert put(service, "canary", "m1").is_yes
    assert [chart for chart, _, _ in told.heard] == ["web"]
    assert "the subscriber is away" in caplog.text
