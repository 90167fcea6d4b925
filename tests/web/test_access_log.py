"""One JSON line a request, whatever is in the request."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.log import Author
from app.logs import BatchHandler, ConsoleFormatter, _pieces, configure_logging
from app.service.tokens import Role, create_token
from app.web.observe import may_carry_id
from app.wiring import service_of
from tests.support.apps import SEED, import_text, opened_app
from tests.support.databases import ON_ONE_DATABASE
from tests.support.lines import Lines
from tests.support.processes import until

HOSTILE = ['"', "\n", "\r\n", "\x00", "\x1b[31m", "é", "\u2028", "\\", '{"at": "forged"}', "%0a", "a" * 10_000]


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger = logging.getLogger("stateservice.access")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize(("no_colour", "word"), [("1", "yes"), ("", "\x1b[32myes\x1b[0m")])
def test_line_on_a_terminal_is_short_and_cannot_be_forged(
    client: FlaskClient, lines: Lines, monkeypatch: pytest.MonkeyPatch, no_colour: str, word: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    lines.setFormatter(ConsoleFormatter())
    client.put("/state?state=green_state&machine=web-01")
    assert f" PUT /state green_state by web-01 -> {word}, transitioned (200) " in lines.written[-1]
    client.get("/state?state=x%0a%1b[31m")
    assert "\n" not in lines.written[-1]
    assert " GET /state x??[31m -> " in lines.written[-1].replace("\x1b[31mfailed\x1b[0m", "failed")


def test_other_line_on_a_terminal_is_short_and_cannot_be_forged() -> None:
    lines = Lines()
    lines.setFormatter(ConsoleFormatter())
    for level, text in ((logging.INFO, "Listening at: %s"), (logging.WARNING, "a\nforged\x1b[31m line from %s")):
        lines.handle(logging.LogRecord("gunicorn.error", level, "", 0, text, ("here",), None))
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines.written] == [
        "Listening at: here",
        "warning: a?forged?[31m line from here",
    ]


def test_error_on_a_terminal_is_followed_by_its_traceback() -> None:
    lines = Lines()
    lines.setFormatter(ConsoleFormatter())
    try:
        raise ValueError("what a client sent\n06:00:00 forged")
    except ValueError:
        lines.handle(logging.LogRecord("stateservice", logging.ERROR, "", 0, "it broke", (), sys.exc_info()))
    first, *rest = lines.written[-1].splitlines()
    assert first.endswith(" error: it broke")
    assert rest[-2:] == ["  ValueError: what a client sent", "  06:00:00 forged"]


def test_put_is_one_line_that_says_who_and_what_came_of_it(client: FlaskClient, lines: Lines) -> None:
    client.put("/charts/states/state?state=green_state&machine=web-01")
    assert len(lines.written) == 1
    line = lines.last()
    assert 0 < line.pop("milliseconds") < 60_000
    assert len(line.pop("request_id")) == 16
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "stateservice.access",
        "method": "PUT",
        "path": "/charts/states/state",
        "chart": "states",
        "state": "green_state",
        "machine": "web-01",
        "actor": None,
        "remote_addr": "127.0.0.1",
        "outcome": "yes",
        "reason": "transitioned",
        "status": 200,
    }


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    ("path", "outcome", "reason", "status"),
    [
        ("/charts/states/state?state=blue_state", "no", "not_current", 406),
        ("/charts/states/state", "refused", "state is missing", 400),
        ("/charts/gone/state?state=a", "refused", "no chart named 'gone'", 404),
        ("/state", "failed", "state is missing", 500),
        ("/charts", "done", None, 200),
    ],
    ids=["no", "bad request", "not found", "seed's path", "done"],
)
def test_outcome_and_reason(
    client: FlaskClient, lines: Lines, path: str, outcome: str, reason: str | None, status: int
) -> None:
    client.get(path)
    line = lines.last()
    assert (line["outcome"], line["reason"], line["status"]) == (outcome, reason, status)


def test_default_chart_is_named(client: FlaskClient, lines: Lines) -> None:
    client.get("/state?state=green_state", headers={"X-Machine": "wéb".encode().decode("latin-1")})
    assert (lines.last()["chart"], lines.last()["machine"]) == ("states", "wéb")


def test_actor_is_the_tokens_name_and_the_token_is_in_no_line(database_url: str, lines: Lines) -> None:
    for app in opened_app(database_url, auth="tokens"):
        import_text(app, SEED)
        token = create_token(service_of(app), "fleet", Role.MACHINE, "*", Author())
        path, sent = "/charts/states/state?state=green_state", {"Authorization": f"Bearer {token}"}
        app.test_client().get(path, headers=sent)
        app.test_client().get(path, headers={"Authorization": "Bearer sst_wrong"})
        assert [json.loads(line)["actor"] for line in lines.written] == ["fleet", None]
        assert lines.last()["status"] == 401
        assert "sst_" not in "".join(lines.written)


@ON_ONE_DATABASE
@pytest.mark.parametrize("text", HOSTILE)
def test_name_cannot_break_or_forge_a_line(client: FlaskClient, lines: Lines, text: str) -> None:
    query = {"state": text, "machine": text, "key": text}
    for path in ("/state", "/charts/states/state"):
        client.put(path, query_string=query)
    assert len(lines.written) == 2
    for line in lines.written:
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["logger"] == "stateservice.access"
        assert len(line) < 2500


@ON_ONE_DATABASE
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_name_leaves_one_line(client: FlaskClient, lines: Lines, text: str) -> None:
    before = len(lines.written)
    client.get("/charts/states/state", query_string={"state": text, "machine": text})
    assert len(lines.written) == before + 1
    assert json.loads(lines.written[-1])["state"] == text


def test_plain_formatter_prints_json_too(client: FlaskClient, lines: Lines) -> None:
    lines.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    client.get("/charts/states/state", query_string={"state": "a\nb"})
    level, _, message = lines.written[0].partition(" ")
    assert (level, json.loads(message)["state"]) == ("INFO", "a\nb")


def test_no_line_when_switched_off(database_url: str, lines: Lines) -> None:
    for app in opened_app(database_url, access_log=False):
        app.test_client().get("/healthz")
        assert lines.written == []


def test_logger_file_decides_where_lines_go(app: Flask, tmp_path: Path) -> None:
    target = tmp_path / "access.log"
    file = tmp_path / "logger.yaml"
    file.write_text(
        "version: 1\ndisable_existing_loggers: false\n"
        "formatters: {json: {(): app.logs.JsonFormatter}}\n"
        f"handlers: {{file: {{class: logging.FileHandler, filename: {target}, formatter: json}}}}\n"
        "loggers: {stateservice.access: {level: INFO, handlers: [file], propagate: false}}\n"
    )
    logger = logging.getLogger("stateservice.access")
    try:
        configure_logging(str(file))
        app.test_client().get("/charts/states/state?state=green_state")
        assert json.loads(target.read_text())["outcome"] == "yes"
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


# The request's id


@ON_ONE_DATABASE
@pytest.mark.parametrize("sent", ["abc", "A-1_b.c", "f" * 64])
def test_sane_id_is_taken_and_given_back(client: FlaskClient, lines: Lines, sent: str) -> None:
    response = client.get("/charts/states", headers={"X-Request-Id": sent})
    assert (response.headers["X-Request-Id"], lines.last()["request_id"]) == (sent, sent)


@ON_ONE_DATABASE
@pytest.mark.parametrize("sent", ["", "a b", "a" * 65, "a;b", "ä", "a\tb"])
def test_other_id_is_replaced(client: FlaskClient, lines: Lines, sent: str) -> None:
    response = client.get("/charts/states", headers={"X-Request-Id": sent})
    assert response.headers["X-Request-Id"] == lines.last()["request_id"] != sent


@ON_ONE_DATABASE
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/state", "/reached", "/charts/states/state", "/charts/x/reached", "/charts/x/slot/"])
def test_answer_about_a_state_carries_no_id(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"{path}?state=a", method=method, headers={"X-Request-Id": "200"})
    assert "X-Request-Id" not in response.headers


@pytest.mark.parametrize(
    ("path", "carries"),
    [
        ("/charts", True),
        ("/charts/a", True),
        ("/charts/state", True),
        ("/charts/a/history", True),
        ("/charts/a/state", False),
        ("/chartstate", False),
        ("/metrics", False),
    ],
)
def test_id_is_for_paths_under_charts(path: str, carries: bool) -> None:
    assert may_carry_id(path) is carries


# Lines written together


def batch_logger(stream: Any) -> tuple[logging.Logger, BatchHandler]:
    handler = BatchHandler(stream)
    logger = logging.getLogger("stateservice.batch")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger, handler


def test_lines_come_in_their_order_without_being_asked_for() -> None:
    stream = StringIO()
    logger, _ = batch_logger(stream)
    for number in range(100):
        logger.info(str(number))
    until(lambda: stream.getvalue().count("\n") == 100, "the lines are written")
    assert stream.getvalue().split() == [str(number) for number in range(100)]


def test_what_is_left_is_written_at_the_end() -> None:
    stream = StringIO()
    logger, handler = batch_logger(stream)
    logger.info("last words")
    handler.flush()
    assert stream.getvalue() == "last words\n"


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once() -> None:
    lines = [str(number) * length for number, length in enumerate([10, 3000, 1000, 90, 4095, 5000, 1])]
    pieces = list(_pieces(lines))
    assert "".join(pieces) == "".join(f"{line}\n" for line in lines)
    assert [piece.count("\n") for piece in pieces] == [3, 1, 1, 1, 1]
    assert list(_pieces([])) == []


def test_broken_stream_loses_its_lines_and_no_more() -> None:
    class Flaky(StringIO):
        is_broken = True

        def write(self, text: str) -> int:
            if self.is_broken:
                raise BrokenPipeError
            return super().write(text)

    stream = Flaky()
    logger, handler = batch_logger(stream)
    logger.info("lost")
    handler.flush()
    stream.is_broken = False
    logger.info("found")
    until(lambda: stream.getvalue() == "found\n", "the next line is written")


def test_forked_process_writes_its_lines_too(tmp_path: Path) -> None:
    target = tmp_path / "log"
    with target.open("w") as stream:
        logger, handler = batch_logger(stream)
        logger.info("parent")
        handler.flush()
        child = os.fork()
        if child == 0:
            logger.info("child")
            until(lambda: "child" in target.read_text(), "the child's line is written")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert target.read_text() == "parent\nchild\n"
