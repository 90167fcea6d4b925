"""Subscriptions are told of rows of the log in order, at least once, whatever the receiver does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from app.chart_file import parse
from app.core import machine
from app.core.errors import BadRequestError, InvalidSubscriptionError, SubscriptionNotFoundError
from app.core.position import Step
from app.service import operate, subscriptions
from app.service.context import Service
from app.service.subscriptions import LAST_PAUSE, Deliverer, Wanted, pause_after, read_wanted
from app.service.webhooks import AllowedHosts, Outcome
from tests.core.support import NOON
from tests.service.support import ANN, CANARY, Clock, import_text, put
from tests.support.receiver import Received, Receiver, receiver

HOSTS = AllowedHosts(["127.0.0.1"])


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def subscribed(service: Service, hook: Receiver) -> Service:
    """The service with the chart `web`, and a subscription to all of its transitions and updates."""
    service.webhook_hosts = HOSTS
    import_text(service, CANARY)
    subscribe(service, hook)
    return service


def subscribe(service: Service, hook: Receiver, name: str = "pager", **fields: object) -> None:
    wanted = replace(Wanted(url=hook.url, kinds=("update", "transition", "pause")), **fields)
    subscriptions.put_subscription(service, name, wanted, ANN)


def deliver(service: Service, name: str = "pager", chart: str = "web") -> None:
    Deliverer(service).deliver(subscriptions.get_subscription(service, name), chart)


def told(hook: Receiver) -> list[str]:
    return [received.id for received in hook.received]


def test_rows_after_the_subscription_are_told_in_order(subscribed: Service, hook: Receiver) -> None:
    put(subscribed, "canary", "m1")
    operate.pause(subscribed, "web", "lunch", ANN)
    operate.resume(subscribed, "web", "back", ANN)
    put(subscribed, "canary", "m2")

    deliver(subscribed)
    deliver(subscribed)

    # The import came before the subscription, and the kind of row 4 is not wanted.
    assert told(hook) == ["web/2", "web/3", "web/5"]
    event = hook.received[1].json()
    assert (event["type"], event["data"]["seq"], event["data"]["reason"]) == ("pause", 3, "lunch")


def test_text_is_one_line_for_people(subscribed: Service, hook: Receiver) -> None:
    subscribe(subscribed, hook, format="text")
    put(subscribed, "canary", "m1", key="failed")

    deliver(subscribed)

    assert hook.received[0].json() == {"text": "web: transition, canary to rollback, failed 1, by m1"}


def test_chart_that_no_pattern_covers_is_not_told(subscribed: Service, hook: Receiver, clock: Clock) -> None:
    subscribe(subscribed, hook, charts=("db-*",))
    put(subscribed, "canary", "m1")

    look(subscribed)

    assert told(hook) == []


def test_failed_row_is_sent_again_later_and_nothing_overtakes_it(
    subscribed: Service, hook: Receiver, clock: Clock
) -> None:
    put(subscribed, "canary", "m1")
    operate.pause(subscribed, "web", "lunch", ANN)
    hook.answer = lambda received: 500
    deliver(subscribed)
    deliver(subscribed)
    # The second came before the pause of a second was over.
    assert [received.id for received in hook.refused] == ["web/2"]
    hook.answer = lambda received: 204
    clock.advance(1)

    deliver(subscribed)

    assert told(hook) == ["web/2", "web/3"]
    found = subscriptions.list_deliveries(subscribed, "pager")
    assert [(one.webhook_id, one.attempt, one.status, one.error) for one in reversed(found)] == [
        ("web/2", 1, 500, "the receiver answered 500"),
        ("web/2", 2, 204, None),
        ("web/3", 1, 204, None),
    ]


def test_pauses_double_up_to_an_hour() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, 40)]

    assert pauses[:4] == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8)]
    assert pauses[-1] == LAST_PAUSE == timedelta(hours=1)


def test_two_deliverers_do_not_send_the_same_row(subscribed: Service, hook: Receiver) -> None:
    put(subscribed, "canary", "m1")
    is_there, may_go = threading.Event(), threading.Event()

    def answer(received: Received) -> int:
        is_there.set()
        assert may_go.wait(30)
        return 204

    hook.answer = answer
    first = threading.Thread(target=deliver, args=[subscribed])
    first.start()
    assert is_there.wait(30)
    deliver(subscribed)  # The other has the cursor.
    may_go.set()
    first.join(30)

    assert told(hook) == ["web/2"]


def test_rows_of_a_deliverer_that_was_killed_are_sent_by_another(
    subscribed: Service, hook: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(subscribed, "canary", "m1")
    with monkeypatch.context() as patch:
        patch.setattr("app.service.subscriptions.send_message", _die)
        with pytest.raises(SystemExit):
            deliver(subscribed)
    deliver(subscribed)
    assert told(hook) == []
    clock.advance(121)

    deliver(subscribed)

    assert told(hook) == ["web/2"]


def _die(*arguments: object) -> None:
    raise SystemExit


def look(service: Service) -> None:
    """Have a deliverer look once, and wait until its threads have sent everything."""
    deliverer = Deliverer(service)
    deliverer.look()
    for thread in list(deliverer._threads.values()):
        thread.join(30)


def test_receiver_that_hangs_delays_no_other(subscribed: Service, hook: Receiver) -> None:
    may_go = threading.Event()

    def answer(received: Received) -> int:
        assert may_go.wait(30)
        return 204

    with receiver() as other:
        hook.answer = answer
        subscribe(subscribed, other, "other")
        put(subscribed, "canary", "m1")
        deliverer = Deliverer(subscribed)
        deliverer.look()
        thread = next(one for one in list(deliverer._threads.values()) if one.name == "deliver other")
        thread.join(30)

        assert (told(other), told(hook)) == (["web/2"], [])
        may_go.set()
        for thread in list(deliverer._threads.values()):
            thread.join(30)
    assert told(hook) == ["web/2"]


def test_condition_is_told_once_with_its_reason(subscribed: Service, hook: Receiver) -> None:
    subscribe(subscribed, hook, kinds=("condition:failed", "condition:paused"))
    put(subscribed, "canary", "m1", key="failed")

    look(subscribed)
    look(subscribed)

    assert told(hook) == ["web/2/condition:failed"]
    event = hook.received[0].json()
    assert (event["type"], event["data"]["condition"]) == ("condition:failed", "failed")
    assert "m1" in event["data"]["because"]


def test_condition_that_could_not_be_told_is_told_later(subscribed: Service, hook: Receiver, clock: Clock) -> None:
    subscribe(subscribed, hook, kinds=("condition:failed", "condition:paused"))
    look(subscribed)
    operate.pause(subscribed, "web", "lunch", ANN)
    hook.answer = lambda received: 503
    look(subscribed)
    hook.answer = lambda received: 204
    clock.advance(1)

    look(subscribed)

    assert told(hook) == ["web/2/condition:paused"]


def test_changed_subscription_goes_on_where_it_was(subscribed: Service, hook: Receiver) -> None:
    put(subscribed, "canary", "m1")
    deliver(subscribed)
    subscribe(subscribed, hook, kinds=("update", "transition"))
    put(subscribed, "canary", "m2")

    deliver(subscribed)

    assert told(hook) == ["web/2", "web/3"]


def test_service_of_a_listed_scheme_gets_the_line_for_people(
    subscribed: Service, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str]] = []
    monkeypatch.setattr("app.service.subscriptions.check_notification", lambda url: None)
    monkeypatch.setattr(
        "app.service.subscriptions.notify", lambda url, text: said.append((url, text)) or Outcome(None, None)
    )
    subscribed.webhook_hosts = AllowedHosts(["slack://"])
    subscribe(subscribed, hook, url="slack://token/room")
    put(subscribed, "canary", "m1")

    deliver(subscribed)

    assert said == [("slack://token/room", "web: update, canary, count 1, by m1")]
    (sent,) = subscriptions.list_deliveries(subscribed, "pager")
    assert (sent.webhook_id, sent.status, sent.error) == ("web/2", None, None)


def test_change_counts_for_the_rows_that_are_being_sent(subscribed: Service, hook: Receiver) -> None:
    put(subscribed, "canary", "m1")
    put(subscribed, "canary", "m2")
    with receiver() as other:

        def change(received: Received) -> int:
            subscribe(subscribed, other)
            return 204

        hook.answer = change
        look(subscribed)
        look(subscribed)

        # What came of the first row is not kept: it goes out again.
        assert (told(hook), told(other)) == (["web/2"], ["web/2", "web/3"])


def test_deleted_subscription_gets_no_further_row(subscribed: Service, hook: Receiver) -> None:
    found = subscriptions.get_subscription(subscribed, "pager")
    put(subscribed, "canary", "m1")
    subscriptions.delete_subscription(subscribed, "pager")
    subscribe(subscribed, hook)

    Deliverer(subscribed).deliver(found, "web")

    assert told(hook) == []


def test_new_chart_is_told_from_its_first_row(subscribed: Service, hook: Receiver) -> None:
    subscribe(subscribed, hook, kinds=("import",))
    import_text(subscribed, CANARY.replace("chart: web", "chart: db"))

    look(subscribed)

    assert told(hook) == ["db/1"]


def test_deleted_subscription_is_told_nothing(subscribed: Service, hook: Receiver) -> None:
    subscriptions.delete_subscription(subscribed, "pager")
    put(subscribed, "canary", "m1")

    look(subscribed)

    assert told(hook) == []
    with pytest.raises(SubscriptionNotFoundError):
        subscriptions.list_deliveries(subscribed, "pager")


def test_secret_is_made_once_and_kept_by_a_change(subscribed: Service, hook: Receiver) -> None:
    made = subscriptions.put_subscription(subscribed, "new", Wanted(url=hook.url), ANN)
    changed = subscriptions.put_subscription(subscribed, "new", Wanted(url=hook.url), ANN)

    assert str(made.as_json()["secret"]).startswith("whsec_")
    assert "secret" not in changed.as_json()
    assert changed.subscription.secret == made.secret


@pytest.mark.parametrize(
    ("fields", "error", "culprit"),
    [
        ({}, InvalidSubscriptionError, "url is missing"),
        ({"url": "http://127.0.0.1/", "kind": "update"}, BadRequestError, "kind"),
        ({"url": "http://127.0.0.1/", "kinds": ["updates"]}, InvalidSubscriptionError, "updates"),
        ({"url": "http://127.0.0.1/", "kinds": []}, InvalidSubscriptionError, "empty"),
        ({"url": "http://127.0.0.1/", "kinds": [1]}, InvalidSubscriptionError, "kinds"),
        ({"url": "http://127.0.0.1/", "charts": ["a/b"]}, InvalidSubscriptionError, "a/b"),
        ({"url": "http://127.0.0.1/", "format": "xml"}, InvalidSubscriptionError, "xml"),
        ({"url": "http://127.0.0.1/", "secret": "whsec_?"}, BadRequestError, "secret"),
        ({"url": "http://10.0.0.1/"}, InvalidSubscriptionError, "10.0.0.1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_subscription_is_refused_and_changes_nothing(
    subscribed: Service, fields: dict[str, object], error: type[Exception], culprit: str
) -> None:
    with pytest.raises(error, match=culprit.replace("?", r"\?")):
        subscriptions.put_subscription(subscribed, "bad", read_wanted(fields), ANN)

    assert [one.name for one in subscriptions.list_subscriptions(subscribed)] == ["pager"]


def test_commit_wakes_the_deliverer_only_if_there_is_a_subscription(service: Service, hook: Receiver) -> None:
    service.webhook_hosts = HOSTS
    import_text(service, CANARY)
    deliverer = Deliverer(service)
    deliverer.look()
    deliverer.note_commit("web", put_step())
    assert not deliverer._wake.is_set()

    subscribe(service, hook)
    deliverer.look()
    deliverer.note_commit("web", put_step())

    assert deliverer._wake.is_set()


def put_step() -> Step:
    return machine.start(parse(CANARY).chart, 1, 1, NOON)
