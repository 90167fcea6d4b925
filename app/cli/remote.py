"""The command line from anywhere: with `--server URL` each command asks a server over HTTP instead of the database.

The commands and their options are the same. `COMMANDS` says for each what it asks, and `install` puts that before the
command's own function.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import click
import urllib3
from urllib3.exceptions import HTTPError

from app import chart_file
from app.cli.chart import print_charts
from app.cli.shared import (
    NO,
    USAGE,
    fail,
    load_config,
    open_service,
    print_json,
    print_problems,
    print_table,
    read_file,
)
from app.cli.subscription import print_deliveries, print_put, print_subscriptions, print_test
from app.config import SERVER, TOKEN_FILE
from app.core.errors import ChartFileError, Problem, StateServiceError
from app.core.log import format_instant
from app.service.operate import say_imported
from app.service.reading import list_statuses

CONTEXTS = Path("~/.config/stateservice.toml")
TIMEOUT = urllib3.Timeout(connect=10, read=120)
JSON, TEXT = "application/json", "text/plain"
Parameters = Mapping[str, Any]


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
    return Server(url.rstrip("/"), None if token_file is None else _read_token(Path(token_file).expanduser()))


def _find_context(name: str | None) -> dict[str, Any] | None:
    path = CONTEXTS.expanduser()
    if not path.exists():
        if name is not None:
            fail(f"there is no context {name!r}: {path} does not exist", USAGE)
        return None
    try:
        file = tomllib.loads(path.read_text())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{path}: {error}", USAGE)
    name = name or file.get("context")
    if name is None:
        return None
    found = file.get("contexts", {}).get(name)
    if not isinstance(found, dict) or not isinstance(found.get("server"), str):
        fail(f"{path} has no context {name!r} with a server", USAGE)
    return found


def _read_token(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            fail(f"{path}: other users can read this token: chmod 600 {path}", USAGE)
        return path.read_text().strip()
    except OSError as error:
        fail(f"{path}: {error.strerror}", USAGE)


class Remote:
    """Requests to a server. An answer that is an error ends the command: exit 2 for a bad request, 1 for a no."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def ask(
        self,
        method: str,
        path: str,
        query: Parameters | None = None,
        *,
        accept: str = JSON,
        body: bytes | dict[str, Any] | None = None,
        accepted: Collection[int] = (),
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to one request, of which the body has not been read. Redirects are not followed.

        Statuses from 300 on are errors, if they are not `accepted`.
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
        except HTTPError as error:
            fail(f"{self._server.url}: {error}", NO)
        if answer.status >= 300 and answer.status not in accepted:
            _fail_as(answer)
        return answer

    def json(self, method: str, path: str, query: Parameters | None = None, **given: Any) -> Any:
        """As `ask`; return the JSON of the answer."""
        return json.loads(self.ask(method, path, query, **given).read())

    def print_text(self, path: str, query: Parameters | None = None, *, accept: str = TEXT) -> None:
        """Ask, and print the answer as it comes."""
        for piece in self.ask("GET", path, query, accept=accept).stream(65536):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _list_pairs(query: Parameters) -> list[tuple[str, str]]:
    """Return the parameters of a query. Options that were not given are left out, and a list gives one pair each."""
    pairs = []
    for key, value in query.items():
        values = value if isinstance(value, list) else [value]
        pairs += [(key, _as_text(item)) for item in values if item is not None and item is not False]
    return pairs


def _as_text(value: Any) -> str:
    if value is True:
        return "1"
    return format_instant(value) if isinstance(value, datetime) else str(value)


def _fail_as(answer: urllib3.BaseHTTPResponse) -> NoReturn:
    body = answer.read()
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    for found in problem.get("problems", []) if isinstance(problem, dict) else []:
        print_problems("chart", [Problem(found["line"], found["column"], found["message"])])
    detail = problem.get("detail") if isinstance(problem, dict) else None
    said = detail or body.decode(errors="replace").strip()[:300] or "no reason was given"
    fail(f"the server answered {answer.status}: {said}", USAGE if answer.status in (400, 413, 422) else NO)


def chart_path(name: str, *rest: str) -> str:
    """Return the path of a chart, or of something below it."""
    return "/".join(["/charts", quote(name, safe=""), *rest])


# Charts


def _list_charts(remote: Remote, given: Parameters) -> None:
    print_charts(remote.json("GET", "/charts"), as_json=given["as_json"])


def _show_chart(remote: Remote, given: Parameters) -> None:
    path, query = chart_path(given["name"]), {"at": given.get("at")}
    if given["as_json"]:
        print_json(remote.json("GET", path, query))
    else:
        remote.print_text(path, query)


def _import_chart(remote: Remote, given: Parameters) -> None:
    file, text = given["file"], read_file(given["file"])
    name = given["name"]
    if name is None:
        try:
            stem = None if file == "-" else Path(file).stem
            name = chart_file.parse(text, default_name=stem).chart.name
        except ChartFileError as error:
            print_problems(file, error.problems)
            sys.exit(USAGE)
    query = {"dry_run": given["dry_run"], "map": list(given["maps"])}
    found = remote.json("PUT", chart_path(name), query, body=text)
    warnings = [Problem(one["line"], one["column"], one["message"]) for one in found["warnings"]]
    print_problems(file, warnings, kind="warning")
    if given["as_json"]:
        print_json(found)
        return
    click.echo(say_imported(found), nl=False)


def _export_chart(remote: Remote, given: Parameters) -> None:
    remote.print_text(chart_path(given["name"]), accept="application/yaml")


def _draw_chart(remote: Remote, given: Parameters) -> None:
    remote.print_text(chart_path(given["name"], "diagram"), {"format": given["form"], "theme": given["theme"]})


def _list_machines(remote: Remote, given: Parameters) -> None:
    path = chart_path(given["name"], "machines")
    query = {name: given[name] for name in ("state", "run", "visit", "key")}
    query["is"] = "missing" if given["missing"] else given["which"]
    if given["as_json"]:
        print_json(remote.json("GET", path, query))
    elif given["as_csv_"]:
        remote.print_text(path, query, accept="text/csv")
    else:
        remote.print_text(path, query)


def _print_history(remote: Remote, given: Parameters) -> None:
    path, form = chart_path(given["name"], "history"), given["form"]
    query = {name: given[name] for name in ("after", "limit", "kind", "machine", "since", "until")}
    if form is not None:
        if form == "json":
            lines = [json.dumps(row, ensure_ascii=False) for row in _rows(remote, path, query)]
            click.echo("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")
        else:
            remote.print_text(path, query, accept={"csv": "text/csv", "ndjson": "application/x-ndjson"}[form])
        return
    headings = ("SEQ", "AT", "KIND", "FROM", "TO", "KEY", "VALUE", "MACHINE", "ACTOR", "REASON")
    names = ("seq", "at", "kind", "from_state", "to_state", "key", "value_after", "machine", "actor", "reason")
    print_table(headings, ([row[name] for name in names] for row in _rows(remote, path, query)))


def _rows(remote: Remote, path: str, query: Parameters) -> Iterable[dict[str, Any]]:
    answer, kept = remote.ask("GET", path, query, accept="application/x-ndjson"), b""
    for piece in answer.stream(65536):
        *lines, kept = (kept + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line)


def _list_runs(remote: Remote, given: Parameters) -> None:
    query = {"limit": given["limit"], "before": given["before"]}
    print_json(remote.json("GET", chart_path(given["name"], "runs"), query))


def _act(act: str, *fields: str) -> Callable[[Remote, Parameters], None]:
    """Return what asks for an operator's act, whose body has the reason and `fields`."""

    def ask(remote: Remote, given: Parameters) -> None:
        path = chart_path(given["name"])
        values = {name: _as_text(given[name]) for name in ("reason", *fields) if given[name] is not None}
        found = remote.json("POST", f"{path}/{act}", {"dry_run": given.get("dry_run")}, body=values)
        if given["as_json"] or given.get("dry_run"):
            print_json(found)
        elif act == "archive":
            click.echo(f"{given['name']}: archived")
        else:
            remote.print_text(path)

    return ask


# Subscriptions


def _subscription_path(name: str, *rest: str) -> str:
    return "/".join(["/subscriptions", quote(name, safe=""), *rest])


def _set_subscription(remote: Remote, given: Parameters) -> None:
    fields = {"url": given["url"], "secret": given["secret"], "format": given["form"]}
    fields |= {name: list(given[name]) for name in ("charts", "kinds") if given[name]}
    body = {name: value for name, value in fields.items() if value is not None}
    found = remote.json("PUT", _subscription_path(given["name"]), body=body)
    print_put(given["name"], found, is_new="secret" in found)


def _list_subscriptions(remote: Remote, given: Parameters) -> None:
    print_subscriptions(remote.json("GET", "/subscriptions"), as_json=given["as_json"])


def _show_subscription(remote: Remote, given: Parameters) -> None:
    print_json(remote.json("GET", _subscription_path(given["name"])))


def _delete_subscription(remote: Remote, given: Parameters) -> None:
    remote.json("DELETE", _subscription_path(given["name"]))
    click.echo(f"{given['name']}: deleted")


def _test_subscription(remote: Remote, given: Parameters) -> None:
    print_test(given["name"], remote.json("POST", _subscription_path(given["name"], "test")))


def _list_deliveries(remote: Remote, given: Parameters) -> None:
    found = remote.json("GET", _subscription_path(given["name"], "deliveries"), {"limit": given["limit"]})
    print_deliveries(found, as_json=given["as_json"])


COMMANDS: dict[str, Callable[[Remote, Parameters], None]] = {
    "chart list": _list_charts,
    "chart show": _show_chart,
    "chart import": _import_chart,
    "chart export": _export_chart,
    "chart diagram": _draw_chart,
    "chart machines": _list_machines,
    "chart history": _print_history,
    "chart runs": _list_runs,
    "chart pause": _act("pause"),
    "chart resume": _act("resume"),
    "chart reset": _act("reset"),
    "chart goto": _act("goto", "state"),
    "chart open": _act("open", "until"),
    "chart evict": _act("evict", "machine"),
    "chart archive": _act("archive"),
    "subscription set": _set_subscription,
    "subscription list": _list_subscriptions,
    "subscription show": _show_subscription,
    "subscription delete": _delete_subscription,
    "subscription test": _test_subscription,
    "subscription deliveries": _list_deliveries,
}
# These need no database if they are about a file.
ON_FILES = frozenset({"chart lint", "chart test", "chart new", "chart simulate"})
# These ask whichever it is by themselves.
ON_BOTH = frozenset({"chart wait", "chart watch", "chart prove"})
_SERVER = "stateservice.server"


def use(context: click.Context, server: Server | None) -> None:
    """Have the commands below `context` ask `server`; None leaves them on the database."""
    context.meta[_SERVER] = server


def find_remote(context: click.Context) -> Remote | None:
    """Return the server that the commands below `context` ask; None if they are on the database."""
    server: Server | None = context.meta.get(_SERVER)
    return None if server is None else Remote(server)


def install(group: click.Group, path: str = "") -> None:
    """Let each command of `group` and of the groups below ask a server, if one is used."""
    for name, command in group.commands.items():
        below = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            install(command, below)
        else:
            command.callback = _over_http(below, command.callback)
            for parameter in command.params:
                if path == "chart" and parameter.name in ("name", "names"):
                    parameter._custom_shell_complete = complete_chart


def complete_chart(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the charts that begin with `incomplete`, for the shell; none if they cannot be read."""
    root = context.find_root().params
    database = root.get("database")
    try:
        server = find_server(root.get("server"), root.get("server_context"), root.get("token_file"), database)
        if server is None:
            with context.scope(cleanup=False):
                service = open_service(load_config(database_url=database))
            charts = [one.chart for one in list_statuses(service)]
        else:
            charts = [one["chart"] for one in Remote(server).json("GET", "/charts")]
    except (SystemExit, StateServiceError):
        return []
    return [chart for chart in charts if chart.startswith(incomplete)]


def _over_http(path: str, on_database: Callable[..., Any] | None) -> Callable[..., Any]:
    assert on_database is not None  # a command has one

    def run(**given: Any) -> Any:
        remote = find_remote(click.get_current_context())
        if remote is None or path in ON_BOTH or (path in ON_FILES and _is_about_files(given)):
            return on_database(**given)
        ask = COMMANDS.get(path)
        if ask is None:
            fail(f"`{path}` works on the database or on files, not on a server: leave out --server", USAGE)
        return ask(remote, given)

    return run


def _is_about_files(given: Parameters) -> bool:
    return "target" not in given or Path(given["target"]).exists()
