"""The command line from anywhere: with `--server URL` each command asks a server over HTTP instead of the database.

The commands and their options are the same. asks.py says for each what it asks, and `install` puts that before the
command's own function.
"""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import click
import urllib3
from click.shell_completion import CompletionItem
from urllib3.exceptions import HTTPError

from app.cli.shared import ANSWERED, NO, USAGE, exits_on_error, fail, load_config, open_service, print_problems
from app.config import SERVER, TOKEN_FILE
from app.core.chart import CHART_NAME
from app.core.errors import (
    CalendarNotFoundError,
    ChartNotFoundError,
    ConflictError,
    Problem,
    RosterNotFoundError,
    StateServiceError,
    SubscriptionNotFoundError,
)
from app.core.log import format_instant
from app.logs import printable
from app.service.reading import list_statuses
from app.service.tokens import NAME as TOKEN_NAME

CONTEXTS = "~/.config/stateservice.toml"
TIMEOUT = urllib3.Timeout(connect=10, read=120)
# While a shell waits for the names of charts.
SHORT_TIMEOUT = urllib3.Timeout(connect=2, read=2)
JSON, TEXT, HTML, ANYTHING = "application/json", "text/plain", "text/html", "*/*"
Parameters = Mapping[str, Any]


class UnreachableError(StateServiceError):
    """The server did not answer, or not as a StateService: it may later."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server to ask, and the token to ask with."""

    url: str
    token: str | None = None


def find_server(url: str | None, context: str | None, token_file: str | None, database: str | None) -> Server | None:
    """Return the server that the options, the environment or the context file name; None for the database.

    Exits 2 if a context does not exist, or if other users can read the token's file.
    """
    token_file = token_file or os.environ.get(TOKEN_FILE)
    if url is None and context is None:
        if database is not None or "STATE_SERVICE_DATABASE_URL" in os.environ:
            return None
        url = os.environ.get(SERVER) or None
    if url is None:
        found = _find_context(context)
        if found is None:
            return None
        url, token_file = found["server"], token_file or found.get("token_file")
    if not url.startswith(("http://", "https://")):
        fail(f"the server {url!r} must begin with https:// or http://", USAGE)
    if not {"?", "#", "@"}.isdisjoint(url):
        fail("a server's address has no ?, # or @ in it; a token is read from --token-file", USAGE)
    return Server(url.rstrip("/"), None if token_file is None else _read_token(_find_file(token_file)))


def _find_file(name: str) -> Path:
    # Unlike Path's, it leaves the name as it is for a user without a home, such as a container's.
    return Path(os.path.expanduser(name))


def _find_context(name: str | None) -> dict[str, Any] | None:
    path = _find_file(CONTEXTS)
    if not path.exists():
        if name is not None:
            fail(f"there is no context {name!r}: {path} does not exist", USAGE)
        return None
    try:
        file = tomllib.loads(path.read_text())
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)
    except (UnicodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{path}: {error}", USAGE)
    name = name or file.get("context")
    if name is None:
        return None
    contexts = file.get("contexts")
    found = contexts.get(name) if isinstance(contexts, dict) and isinstance(name, str) else None
    if not isinstance(found, dict) or not isinstance(found.get("server"), str):
        fail(f"{path} has no context {name!r} with a server", USAGE)
    if not isinstance(found.get("token_file", ""), str):
        fail(f"{path}: the token_file of the context {name!r} must be the name of a file", USAGE)
    return found


def _read_token(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            fail(f"{path}: other users can read this token: chmod 600 {path}", USAGE)
        token = path.read_text(errors="replace").strip()
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)
    if not (token.isascii() and token.isprintable() and token):
        fail(f"{path}: a token is one line of ASCII characters", USAGE)
    return token


class Remote:
    """Requests to a server. An answer that is an error ends the command: exit 2 for a bad request, 1 for a no."""

    def __init__(self, server: Server, timeout: urllib3.Timeout = TIMEOUT) -> None:
        self._server = server
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False)
        self._context = click.get_current_context()
        self._context.call_on_close(self._pool.clear)

    def ask(
        self,
        method: str,
        path: str,
        query: Parameters | None = None,
        *,
        accept: str = JSON,
        body: bytes | dict[str, Any] | None = None,
        accepted: Collection[int] = (),
        file: str = "chart",
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to one request, of which the body has not been read. Redirects are not followed.

        Statuses from 300 on are errors, if they are not `accepted`. `file` is what the problems of a body are told of.
        Raises UnreachableError.
        """
        headers = {"Accept": accept, "User-Agent": "stateservice"}
        if self._server.token is not None:
            headers["Authorization"] = f"Bearer {self._server.token}"
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body).encode(), JSON
        pairs = _list_pairs(query or {})
        url = self._server.url + path + (f"?{urlencode(pairs)}" if pairs else "")
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, redirect=False, preload_content=False)
        except (HTTPError, UnicodeError) as error:
            raise UnreachableError(f"{self._server.url}: {error}") from error
        self._context.meta[ANSWERED] = self._server.url
        if answer.status in accepted:
            return answer
        if answer.status >= 300:
            self._fail_as(answer, file)
        # The page on which a proxy has a person sign in has the status 200, too.
        found = answer.headers.get("Content-Type", "none").partition(";")[0].strip().lower()
        if found == HTML or accept not in (found, ANYTHING):
            answer.close()
            raise self._foreign(f"an answer of the type {found} in place of {accept}")
        return answer

    def _foreign(self, what: str) -> UnreachableError:
        return UnreachableError(f"{self._server.url} is not a StateService, or a proxy stands before it: {what}")

    def _read(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """Yield the body of an answer in pieces. Raises UnreachableError if it is cut off."""
        try:
            yield from answer.stream(65536)
        except HTTPError as error:
            answer.close()
            raise UnreachableError(f"{self._server.url}: the answer was cut off: {error}") from error

    def _parse(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise self._foreign("its answer is not JSON") from error

    def json(self, method: str, path: str, query: Parameters | None = None, **given: Any) -> Any:
        """As `ask`; return the JSON of the answer."""
        return self._parse(b"".join(self._read(self.ask(method, path, query, **given))))

    def rows(self, path: str, query: Parameters | None = None) -> Iterator[dict[str, Any]]:
        """Ask for rows, and yield each as it comes."""
        kept = b""
        for piece in self._read(self.ask("GET", path, query, accept="application/x-ndjson")):
            *lines, kept = (kept + piece).split(b"\n")
            yield from (self._parse(line) for line in lines if line)
        if kept:
            raise self._foreign("its last row has no end")

    @property
    def has_token(self) -> bool:
        """True if the requests carry a token."""
        return self._server.token is not None

    def print_text(
        self,
        path: str,
        query: Parameters | None = None,
        *,
        method: str = "GET",
        accept: str = TEXT,
        body: dict[str, Any] | None = None,
    ) -> None:
        """Ask, and print the answer as it comes."""
        for piece in self._read(self.ask(method, path, query, accept=accept, body=body)):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()

    def _fail_as(self, answer: urllib3.BaseHTTPResponse, file: str) -> NoReturn:
        """End the command with the words of the server, which are those of the command on the database.

        Raises UnreachableError if the server failed, or something else answered.
        """
        body = b"".join(self._read(answer))
        try:
            problem = json.loads(body)
        except ValueError:
            problem = {}
        if not isinstance(problem, dict):
            problem = {}
        code = USAGE if answer.status in (400, 413, 422) else NO
        if problem.get("problems"):
            found = [
                Problem(one["line"], one["column"], one["message"], one.get("story", "")) for one in problem["problems"]
            ]
            print_problems(file, found)
            sys.exit(code)
        detail = problem.get("detail")
        if isinstance(detail, str) and detail and answer.status < 500:
            fail(detail, code)
        said = detail or _say_in_one_line(answer, body)
        raise UnreachableError(f"{self._server.url} answered {answer.status}: {said}")


def _list_pairs(query: Parameters) -> list[tuple[str, str]]:
    """Return the parameters of a query. Options that were not given are left out, and a list gives one pair each."""
    pairs = []
    for key, value in query.items():
        values = value if isinstance(value, list) else [value]
        pairs += [(key, as_text(item)) for item in values if item is not None and item is not False]
    return pairs


def as_text(value: Any) -> str:
    """Return the value of an option as a query or a body has it."""
    if value is True:
        return "1"
    return format_instant(value) if isinstance(value, datetime) else str(value)


def _say_in_one_line(answer: urllib3.BaseHTTPResponse, body: bytes) -> str:
    """Return what something else than a StateService says with an error, such as a proxy."""
    if "Location" in answer.headers:
        return f"it redirects to {answer.headers['Location']}"
    if answer.headers.get("Content-Type", "").startswith(HTML):
        return "a page of HTML, so this is not a StateService, or a proxy stands before it"
    words = " ".join(body.decode(errors="replace").split())[:300]
    return printable(words) or "no reason was given"


# What the commands on the database say of a name that nothing has, by the kind of the thing.
_UNKNOWN: Mapping[str, Callable[[str], StateServiceError]] = {
    "charts": ChartNotFoundError,
    "rosters": RosterNotFoundError,
    "calendars": lambda name: CalendarNotFoundError(f"no calendar named {name!r}"),
    "subscriptions": lambda name: SubscriptionNotFoundError(f"no subscription named {name!r}"),
    "tokens": lambda name: ConflictError(f"there is no token named {name!r}"),
}


def path_of(kind: str, name: str, *rest: str) -> str:
    """Return the path of one of the `kind`, such as `rosters`, or of something below it.

    A name that none of the kind can have might be another path: it raises what the database's side raises.
    """
    if not (TOKEN_NAME if kind == "tokens" else CHART_NAME).fullmatch(name):
        raise _UNKNOWN[kind](name)
    return "/".join([f"/{kind}", quote(name, safe=""), *rest])


def chart_path(name: str, *rest: str) -> str:
    """Return the path of a chart, or of something below it."""
    return path_of("charts", name, *rest)


# These need no database.
ON_FILES = frozenset({"chart lint", "chart test", "chart new"})
# These ask whichever it is by themselves.
ON_BOTH = frozenset({"chart wait", "chart watch", "chart prove", "chart simulate"})
_SERVER = "stateservice.server"


def use(context: click.Context, server: Server | None) -> None:
    """Have the commands below `context` ask `server`; None leaves them on the database."""
    context.meta[_SERVER] = server


def find_remote(context: click.Context) -> Remote | None:
    """Return the server that the commands below `context` ask; None if they are on the database."""
    server: Server | None = context.meta.get(_SERVER)
    return None if server is None else Remote(server)


Ask = Callable[[Remote, Parameters], None]


def install(group: click.Group, asks: Mapping[str, Ask], path: str = "") -> None:
    """Let the commands of `group` and below it ask a server, if one is used: `asks` says how, by their words."""
    for name, command in group.commands.items():
        below = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            install(command, asks, below)
        else:
            command.callback = _over_http(below, asks.get(below), command.callback)
            for parameter in command.params:
                parameter._custom_shell_complete = _COMPLETED.get((path, parameter.name or ""))


def complete_chart(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the charts that begin with `incomplete`, for the shell; none if they cannot be read."""
    root = context.find_root().params
    database = root.get("database")
    try:
        # The shell reads this output while the user types: it may have names only.
        with redirect_stderr(io.StringIO()), context.scope(cleanup=False):
            server = find_server(root.get("server"), root.get("server_context"), root.get("token_file"), database)
            if server is None:
                charts = [one.chart for one in list_statuses(open_service(load_config(database_url=database)))]
            else:
                charts = [one["chart"] for one in Remote(server, SHORT_TIMEOUT).json("GET", "/charts")]
    except (SystemExit, Exception):
        return []
    return [chart for chart in charts if chart.startswith(incomplete)]


def complete_file(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell itself complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def _complete_either(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    charts = [CompletionItem(name) for name in complete_chart(context, parameter, incomplete)]
    return [*charts, *complete_file(context, parameter, incomplete)]


# What a shell completes, by the words before a command and the name of its parameter.
_COMPLETED: Mapping[tuple[str, str], Callable[..., Any]] = {
    **dict.fromkeys((("chart", "name"), ("chart", "names"), ("db", "charts")), complete_chart),
    # `prove` and `simulate`.
    **dict.fromkeys((("chart", "chart"), ("chart", "target")), _complete_either),
    **dict.fromkeys((("chart", "file"), ("chart", "files"), ("roster", "file"), ("calendar", "file")), complete_file),
    **dict.fromkeys((("chart", "roster_files"), ("chart", "calendar_files")), complete_file),
    # `serve`.
    **dict.fromkeys((("", "charts"), ("", "roster_files")), complete_file),
}


def _over_http(path: str, ask: Ask | None, on_database: Callable[..., Any] | None) -> Callable[..., Any]:
    assert on_database is not None  # a command has one

    def run(**given: Any) -> Any:
        remote = find_remote(click.get_current_context())
        if remote is None or path in ON_BOTH or path in ON_FILES:
            return on_database(**given)
        if ask is None:
            fail(f"`{path}` works on the database or on files, not on a server: leave out --server", USAGE)
        return exits_on_error(ask)(remote, given)

    return run
