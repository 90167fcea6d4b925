"""Approvals over HTTP, on the page and on the command line: roles, names, each once."""

from __future__ import annotations

import pytest
from flask import Flask

from app.service.operate import approve
from app.service.tokens import Role, create_token
from app.wiring import service_of
from tests.service.support import ANN, import_text, rows
from tests.service.test_approvals import CHANGE
from tests.support.apps import opened_app

URL = "/charts/web/state?state=review&key=approved"


def token(app: Flask, name: str, role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(service_of(app), name, role, '*', ANN)}"}


def test_two_approvers_approve_and_their_second_tokens_do_not_count(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url, auth="tokens"):
        import_text(service_of(app), CHANGE)
        client = app.test_client()
        bob = token(app, "bob", Role.APPROVER)
        assert client.put(URL, headers=bob).status_code == 200
        assert client.put(URL, headers=bob).status_code == 200
        assert client.put(URL + "&machine=cy", headers=bob).status_code == 403
        assert client.put(URL, headers=token(app, "m1", Role.MACHINE)).status_code == 403
        assert client.put(URL, headers=token(app, "op", Role.OPERATOR)).status_code == 403
        assert client.put("/charts/web/state?state=work", headers=bob).status_code == 403
        assert client.get("/charts/web/state?state=review", headers=bob).status_code == 200
        assert client.post("/charts/web/pause", json={"reason": "x"}, headers=bob).status_code == 403
        own = client.put(URL, headers={**token(app, "ann", Role.ADMIN), "Accept": "application/json"})
        assert (own.status_code, own.get_json()["reason"]) == (406, "own_change")
        assert client.put(URL, headers=token(app, "cy", Role.ADMIN)).status_code == 200
        assert [row.machine for row in rows(service_of(app))[1:]] == ["bob", "cy"]


def test_page_has_both_buttons_and_approves_in_the_name_given(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url):
        import_text(service_of(app), CHANGE)
        client = app.test_client()
        page = client.get("/ui/charts/web").text
        assert "Approve…" in page
        assert "Reject…" in page
        client.set_cookie("stateservice_form", "x" * 43)
        form = {"form_token": "x" * 43, "reason": "fine", "person": "bob"}
        done = client.post("/ui/charts/web/approve", data=form, headers={"Origin": "http://localhost"})
        assert done.status_code == 303
        row = rows(service_of(app))[-1]
        assert (row.machine, row.key, row.note) == ("bob", "approved", "fine")


def test_use_case_says_why_it_was_not_counted(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url):
        service = service_of(app)
        import_text(service, CHANGE)
        with pytest.raises(Exception, match="the person who imported version 1 of 'web' may not approve it"):
            approve(service, "web", "approved", "mine", ANN)


def test_machine_has_no_turn_while_people_approve(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url, auth="tokens"):
        import_text(service_of(app), CHANGE)
        client = app.test_client()
        asked = {"m1": (token(app, "fleet", Role.MACHINE), 406), "bob": (token(app, "bob", Role.APPROVER), 200)}
        asked["m2"] = (token(app, "op", Role.OPERATOR), 406)
        for machine, (headers, status) in asked.items():
            answer = client.get(
                f"/charts/web/turn?machine={machine}", headers={**headers, "Accept": "application/json"}
            )
            assert (answer.status_code, answer.get_json()["reason"]) == (
                status,
                "current" if status == 200 else "approvers",
            )


def test_nobody_is_known_to_be_a_person_without_tokens(sqlite_url: str) -> None:
    for app in opened_app(sqlite_url):
        import_text(service_of(app), CHANGE)
        assert app.test_client().get("/charts/web/turn?machine=m1").status_code == 406
