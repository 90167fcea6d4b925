"""What answers `--server` may be no StateService, or one that fails: the command says so in one line, and exits 1."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from app.cli import follow
from app.cli.root import main
from tests.cli.conftest import run_command

Serve = Callable[..., str]


JSON = "application/json"


def answer(status: int, body: bytes, kind: str = JSON, *more: str, length: int | None = None) -> bytes:
    size = f"Content-Length: {len(body) if length is None else length}"
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Connection: close", *(more or [size])]
    return "\r\n".join([*head, "", ""]).encode() + body


def as_json(value: object) -> bytes:
    return answer(200, json.dumps(value).encode())


LOGIN = b"<html>\n<body>\nSign in\n</body>\n</html>"
ANSWERS = {
    "a page of HTML": answer(200, LOGIN, "text/html; charset=utf-8"),
    "a page of HTML with 404": answer(404, LOGIN, "text/html"),
    "a page of HTML with 502": answer(502, LOGIN, "text/html"),
    "a redirect": answer(302, LOGIN, "text/html", "Location: https://login.example/"),
    "nothing": b"",
    "no HTTP": b"\0\xff\xfe\r\n\r\n",
    "500": answer(500, b"two\nlines\x1b[31m", "text/plain"),
    "503 of a service": answer(503, b'{"detail": "no database"}', "application/problem+json"),
    "an answer that is cut off": answer(200, b'[{"chart": "a"', length=500),
    "rows that are cut off": answer(200, b'{"seq": 1}\n{"s', "application/x-ndjson"),
    "text that is cut off": answer(200, b"", "text/plain", length=500),
    "a part of JSON": answer(200, b'[{"chart": "a"'),
    "chunks that are none": answer(200, b"z\r\n", JSON, "Transfer-Encoding: chunked"),
    "gzip that is none": answer(200, b"[]", JSON, "Content-Encoding: gzip"),
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "null": as_json(None),
    "another service's JSON": as_json({"ok": True}),
    "a list of another kind": as_json([1, 2]),
    "problems of another kind": answer(422, b'{"problems": [1]}', "application/problem+json"),
    "a detail of another kind": answer(409, b'{"detail": {"a": 1}}', "application/problem+json"),
}
COMMANDS = [
    ("chart", "list"),
    ("chart", "show", "web"),
    ("chart", "show", "web", "--json"),
    ("chart", "history", "web"),
    ("chart", "history", "web", "--csv"),
    ("chart", "pause", "web", "--reason", "x"),
    ("chart", "verify"),
    ("chart", "wait", "web", "--timeout", "0s"),
    ("token", "create", "a", "--role", "reader"),
    ("subscription", "deliveries", "pager"),
]
# These print what they are told, whatever its shape is.
ANY_JSON = {("chart", "show", "web", "--json"), ("chart", "history", "web")}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that answers each connection with the next of some texts, the last one again and again."""
    open_sockets = []

    def start(*texts: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        open_sockets.append(listening)
        threading.Thread(target=_answer_all, args=(listening, list(texts)), daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for listening in open_sockets:
        # `close` alone would leave `accept` waiting.
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _answer_all(listening: socket.socket, texts: list[bytes]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(texts.pop(0) if len(texts) > 1 else texts[0])


@pytest.mark.parametrize("kind", ANSWERS)
def test_answer_of_something_else_is_one_line_and_exit_1(serve: Serve, kind: str) -> None:
    url = serve(ANSWERS[kind])

    for words in COMMANDS:
        if words in ANY_JSON and kind in ("null", "another service's JSON", "a list of another kind"):
            continue
        done = run_command("--server", url, *words)
        assert (done.code, len(done.err.splitlines())) == (1, 1), (words, done)
        assert url in done.err, (words, done)
        assert "mistake" not in done.err, (words, done)
        assert "\x1b" not in done.err
        if words != ("chart", "history", "web"):
            assert done.out == "", (words, done)


def test_redirect_is_named(serve: Serve) -> None:
    done = run_command("--server", serve(ANSWERS["a redirect"]), "chart", "list")

    assert done.err.endswith("answered 302: it redirects to https://login.example/\n")


def test_shell_completes_nothing_and_prints_nothing_if_the_names_cannot_be_read(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    complete = BashComplete(main, {}, "state_service", "_STATE_SERVICE_COMPLETE")
    places = [("--server", serve(text)) for text in (ANSWERS["a page of HTML"], ANSWERS["null"], ANSWERS["nothing"])]
    places += [("--server", "nonsense"), ("--context", "none"), ("--database", "nonsense")]

    for place in places:
        assert complete.get_completions([*place, "chart", "show"], "") == []
    assert capfd.readouterr() == ("", "")


STATUS = {
    "chart": "web",
    "condition": "running",
    "current_state": "canary",
    "run": 1,
    "because": "so",
    "values": {},
    "waits_for": None,
    "is_final": False,
}
ENDED = STATUS | {"condition": "ended", "current_state": "done", "is_final": True}


@pytest.mark.parametrize("command", ["wait", "watch"])
def test_server_that_starts_again_is_asked_again(serve: Serve, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.01)
    url = serve(as_json(STATUS), ANSWERS["a page of HTML with 502"], ANSWERS["nothing"], as_json(ENDED))

    done = run_command("--server", url, "chart", command, "web")

    assert done.code == 0
    # It says so once, not at each look.
    assert done.err.count("asking again until it answers") == 1


def test_time_is_up_while_the_server_is_gone(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.01)
    url = serve(as_json(STATUS), ANSWERS["nothing"])

    done = run_command("--server", url, "chart", "wait", "web", "--timeout", "1s")

    assert (done.code, done.err.splitlines()[-1]) == (3, "web: the time is up in canary: so")


@pytest.mark.parametrize("command", ["wait", "watch"])
def test_ctrl_c_is_not_taken_for_an_end(serve: Serve, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", interrupt)

    done = run_command("--server", serve(as_json(STATUS)), "chart", command, "web")

    assert (done.code, done.err) == (130, "")


BAD_PLACES = [
    "contexts = 3",
    "[contexts]\na = 3",
    "[contexts.a]\nserver = 3",
    "[contexts.a]\nserver = 'http://127.0.0.1:9'\ntoken_file = 3",
    "x = [",
    "\x00",
]


@pytest.mark.parametrize("text", BAD_PLACES, ids=range(len(BAD_PLACES)))
def test_bad_file_of_contexts_is_one_line_with_its_name(home: Path, text: str) -> None:
    file = home / ".config" / "stateservice.toml"
    file.parent.mkdir()
    file.write_text(text)

    done = run_command("--context", "a", "chart", "list")

    assert (done.code, len(done.err.splitlines()), str(file) in done.err) == (2, 1, True), done


@pytest.mark.parametrize("token", [b"", b"\n", b"a\nb", b"\xff\xfe", "ä".encode(), b"a\0b"], ids=repr)
def test_file_that_holds_no_token_is_named(home: Path, token: bytes) -> None:
    file = home / "token"
    file.write_bytes(token)
    file.chmod(0o600)

    done = run_command("--server", "http://127.0.0.1:9", "--token-file", str(file), "chart", "list")

    assert (done.code, done.err) == (2, f"state_service: {file}: a token is one line of ASCII characters\n")


@pytest.mark.parametrize("url", ["http://ann:secret@127.0.0.1:9", "http://127.0.0.1:9/?a=b", "http://127.0.0.1:9#a"])
def test_address_with_more_than_a_place_is_wrong_usage(url: str) -> None:
    done = run_command("--server", url, "chart", "list")

    assert (done.code, len(done.err.splitlines()), "secret" in done.err) == (2, 1, False), done


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://127.0.0.1:99999", "http:// a", "http://\udcff", "http://a" + "a" * 300]
)
def test_address_that_is_none_is_one_line(url: str) -> None:
    done = run_command("--server", url, "chart", "list")

    assert (done.code, len(done.err.splitlines()), "mistake" in done.err) == (1, 1, False), done


def test_user_without_a_home_has_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)

    done = run_command("--context", "a", "chart", "list")

    assert (done.code, len(done.err.splitlines()), "does not exist" in done.err) == (2, 1, True), done
