"""Two machines with one id: a machine that asks for a slot which another address has claimed is told so."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.core.log import Author
from app.core.position import Claim
from app.service.context import Service
from app.service.put import Sent, apply
from app.service.upkeep import prune
from tests.service.support import import_text
from tests.support.slots import rolling

HERE, THERE = "127.0.0.1", "127.0.0.2"
WARNING = f"chart web: machine 'clone' has a slot of reboot, claimed from {HERE}, and asks for it from {THERE}"


@pytest.fixture
def charts() -> Sequence[str]:
    return []


@pytest.fixture(params=[None, "100s"], ids=["no lease", "lease"])
def chart(service: Service, request: pytest.FixtureRequest) -> None:
    lease = {} if request.param is None else {"lease": request.param}
    import_text(service, rolling(expect="[clone, m2]", count="2", **lease))


def claim(client: FlaskClient, address: str) -> dict[str, Any]:
    response = client.put(
        "/charts/web/slot?state=reboot&machine=clone",
        headers={"Accept": "application/json"},
        environ_overrides={"REMOTE_ADDR": address},
    )
    assert response.status_code == 200
    found: dict[str, Any] = response.get_json()
    return found


@pytest.mark.usefixtures("chart")
def test_clone_is_told_and_logged(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    assert "claimed_from" not in claim(client, HERE)
    assert "claimed_from" not in claim(client, HERE)
    assert WARNING not in caplog.text
    assert claim(client, THERE)["claimed_from"] == HERE
    assert WARNING in caplog.text


@pytest.mark.usefixtures("chart")
def test_clone_of_an_earlier_slot_is_none(client: FlaskClient) -> None:
    """A machine that gave its slot back may come again from another address: it was restarted, or has moved."""
    claim(client, HERE)
    client.put("/charts/web/state?state=reboot&machine=clone&key=failed")
    assert "claimed_from" not in claim(client, THERE)
    assert "claimed_from" not in claim(client, THERE)


@pytest.mark.usefixtures("chart")
def test_clone_is_not_told_after_a_prune(service: Service, owner: Service, client: FlaskClient) -> None:
    claim(client, HERE)
    claim(client, HERE)
    client.put("/charts/web/slot?state=reboot&machine=m2")
    prune(owner, "web", timedelta(0), Author())
    assert "claimed_from" not in claim(client, THERE)


@pytest.mark.usefixtures("chart")
def test_clones_in_one_transaction_are_told(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    sent = [Sent("web", Claim("reboot", "clone"), Author(remote_addr=address)) for address in (HERE, THERE)]
    answers = [found.answer.claimed_from for found in apply(service, sent)]  # type: ignore[union-attr]  # no errors
    assert answers == [None, HERE]
    assert WARNING in caplog.text


def test_clone_is_logged_by_fleetlock(service: Service, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    import_text(service, rolling(expect="[clone, m2]", count="2"))
    for address in (HERE, THERE):
        response = client.post(
            "/v1/pre-reboot",
            json={"client_params": {"id": "clone", "group": "web"}},
            headers={"fleet-lock-protocol": "true"},
            environ_overrides={"REMOTE_ADDR": address},
        )
        assert response.status_code == 200
    assert WARNING in caplog.text
