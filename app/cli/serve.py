"""Serving: migrate the database, import the charts, and become gunicorn."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from app import chart_file
from app.cli.database import migrate
from app.cli.given import read_lines
from app.cli.shared import NO, USAGE, current_author, fail, open_service, print_problems, read_file
from app.config import HOME, PREFIX, Config, is_loopback, require_auth
from app.core.errors import ChartFileError
from app.db.engine import normalize_url
from app.logs import configure_logging
from app.service.context import Service
from app.service.operate import ImportRequest, find_behind, import_chart
from app.service.rosters import RosterRequest, find_earlier, import_roster


def serve(
    config: Config,
    charts: Sequence[str],
    host: str,
    *,
    rosters: Sequence[str] = (),
    debug: bool,
    take_file: bool = False,
) -> None:
    """Migrate the database, import `rosters` and `charts` (the first is the default chart), and serve.

    Does not return. A file with the text of an earlier version is imported only if `take_file` says so.
    """
    if config.auth is None and is_loopback(host):
        config = replace(config, auth="open")
    require_auth(config)
    config = with_absolute_paths(config)
    configure_logging(config.logger)
    # Whatever can stop the start is looked at before the database is changed.
    requests = {file: read_chart(file) for file in charts}
    lists = read_lines(rosters)
    with reserved(config.bind):
        migrate(config)
        service = open_service(config)
        rehearse(service, requests, lists, take_file=take_file)
        for name, lines in lists.items():
            import_list(service, name, lines, take_file=take_file)
        names = [import_file(service, file, requests[file], take_file=take_file) for file in charts]
    if names:
        config = replace(config, default_chart=names[0])
    default = config.default_chart or "none is set; /state asks the only chart there is"
    click.echo(f"serving on http://{config.bind} (default chart: {default})", err=True)
    become_gunicorn(config, debug=debug)


def with_absolute_paths(config: Config) -> Config:
    """Return the settings with absolute paths, because gunicorn runs in the service's own folder."""
    url = normalize_url(config.database_url).render_as_string(hide_password=False)
    return replace(config, database_url=url, logger=config.logger and str(Path(config.logger).absolute()))


@contextmanager
def reserved(bind: str) -> Iterator[None]:
    """Hold the address HOST:PORT while the block runs, without listening. Exits 1 if it cannot be had."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        # As gunicorn does: connections that have ended do not keep the port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, int(port)))
        except OSError as error:
            hint = "; --port takes another one" if error.errno == errno.EADDRINUSE else ""
            fail(f"cannot listen on {bind}: {error.strerror}{hint}", NO)
        yield


def read_chart(file: str) -> ImportRequest:
    """Read a chart file. Exits 2 with each problem of a bad file."""
    request = ImportRequest(read_file(file), default_name=Path(file).stem)
    try:
        chart_file.parse(request.text, default_name=request.default_name)
    except ChartFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    return request


def rehearse(
    service: Service, requests: Mapping[str, ImportRequest], lists: Mapping[str, dict[str, str]], *, take_file: bool
) -> None:
    """Do every import without writing it: what cannot be imported ends the start before anything is.

    Raises ConflictError, ChartFileError.
    """
    author = current_author()
    # The first roster is imported first: if it cannot be, nothing was. It may be large, and is not read twice.
    for name, lines in list(lists.items())[1:]:
        if take_file or find_earlier(service, name, lines) is None:
            import_roster(service, RosterRequest(name, lines, dry_run=True), author)
    for request in requests.values():
        if not take_file and find_behind(service, request) is not None:
            continue
        try:
            import_chart(service, replace(request, dry_run=True), author)
        except ChartFileError:
            # The file itself was read without a problem: it may follow a roster that is not imported yet.
            if not lists:
                raise


def import_list(service: Service, name: str, lines: dict[str, str], *, take_file: bool) -> None:
    """Import a roster, unless the lines are those of an earlier version, and print the outcome."""
    version = None if take_file else find_earlier(service, name, lines)
    if version is not None:
        click.echo(f"roster {name}: the file is version {version}, and a later one is in force; left alone", err=True)
        return
    imported = import_roster(service, RosterRequest(name, lines), current_author())
    click.echo(f"roster {imported.as_text()}", nl=False, err=True)


def import_file(service: Service, file: str, request: ImportRequest, *, take_file: bool) -> str:
    """Import a chart file, print the outcome, and return the chart's name.

    A restart must not undo an upgrade: a file that was left behind is not imported unless `take_file` says so.
    """
    behind = None if take_file else find_behind(service, request)
    if behind is not None:
        click.echo(
            f"{behind.chart}: {file} is version {behind.file}, and version {behind.running} runs;"
            " left alone (--take-file rolls back)",
            err=True,
        )
        return behind.chart
    imported = import_chart(service, request, current_author())
    print_problems(file, imported.warnings, kind="warning")
    status = imported.status
    click.echo(f"{status.chart}: {imported.outcome}, version {status.version}, in {status.current_state}", err=True)
    return status.chart


def become_gunicorn(config: Config, *, debug: bool) -> None:
    """Replace this process by gunicorn, as production runs it, with `config` as its environment."""
    command = [sys.executable, "-m", "gunicorn", "-c", str(HOME / "gunicorn.conf.py"), "--chdir", str(HOME)]
    if debug:
        command += ["--reload", "--log-level", "debug"]
    try:
        os.execve(sys.executable, [*command, "wsgi:app"], environment_of(config))
    except OSError as error:
        fail(f"cannot start gunicorn: {error}", USAGE)


def environment_of(config: Config) -> dict[str, str]:
    """Return the environment from which another process reads the same settings as `config`."""
    environment = dict(os.environ)
    for name, value in config.given().items():
        environment[PREFIX + name.upper()] = value
    return environment
