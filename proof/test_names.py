"""A few of the hostile names on one database, and each way to let one through; all of them are in `make prove`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from proof import names
from proof.stand import sqlite_database

# A line feed, what is no UTF-8, markup.
SOME = (b"a\nb", b"\xff\xfe", b'"><img src=x onerror=x()>')


def test_names_break_nothing(tmp_path: Path) -> None:
    with sqlite_database(tmp_path) as database:
        found = names.try_names("sqlite", database.url, SOME)
    assert found.wrong == []
    assert found.is_proof, found.as_line()


def test_names_forge_no_line_of_a_servers_log(tmp_path: Path) -> None:
    assert names.log_names(tmp_path, SOME) == []


def trust_templates(app: Flask, patch: pytest.MonkeyPatch) -> None:
    # Seen when a template is compiled: those in the cache go on as they were.
    patch.setattr(app.jinja_env, "autoescape", False)


def leave_formulas(app: Flask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("app.service.reading.quote_cell", lambda value: value)


def leave_quotes(app: Flask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("app.web.charts.quote_for_curl", lambda text: f'"{text}"')


def echo_names(app: Flask, patch: pytest.MonkeyPatch) -> None:
    app.after_request_funcs.setdefault(None, []).insert(0, _echo)


def _echo(response: names.TestResponse) -> names.TestResponse:
    response.headers["X-State"] = "open_state"
    return response


def log_as_text(app: Flask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("app.logs.JsonFormatter.format", lambda self, record: str(dict(record.msg).get("state")))


def take_any_text(app: Flask, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("app.web.operate.check_text", lambda name, value, limit: value)
    patch.setattr("app.service.operate.require_reason", lambda reason, hint="": reason)


# Each with a name that it lets through, and what is said of it.
DEFECTS: dict[str, tuple[Callable[[Flask, pytest.MonkeyPatch], None], bytes, str]] = {
    "templates that trust": (trust_templates, b'"><img src=x onerror=x()>', "onerror"),
    "formulas in the CSV": (leave_formulas, b"=cmd|' /C calc'!A0", "a formula"),
    "quotes in a curl file": (leave_quotes, b'a"b', "a line of the curl file"),
    "a header more": (echo_names, b"a", "the header X-State"),
    "a log of text": (log_as_text, b"a\nb", "not one line of its own"),
    "reasons of any text": (take_any_text, b"\x1b[31m", "cannot be printed"),
}


@pytest.mark.parametrize(("defect", "name", "said"), DEFECTS.values(), ids=DEFECTS)
def test_defect_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    defect: Callable[[Flask, pytest.MonkeyPatch], None],
    name: bytes,
    said: str,
) -> None:
    def prepare(app: Flask) -> None:
        defect(app, monkeypatch)

    with sqlite_database(tmp_path) as database:
        found = names.try_names("sqlite", database.url, [name], prepare, share=0)
    assert said in "".join(found.wrong)
