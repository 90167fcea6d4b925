"""Traces one GET and one PUT through the service and prints how much code each crosses: `python -m bench.trace`.

Counts the calls of functions in `app/`, the files that they are in, and how often one call is in another file than the
call before it: what a reader who follows the request has to open.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from types import FrameType

from flask import Flask

from app import schema
from app.config import Config
from app.core.log import Author
from app.db.engine import open_engine
from app.service.operate import ImportRequest, import_chart
from app.web.request import Request
from app.web.state import StateDoor
from app.wiring import create_app, service_of

ROOT = Path(__file__).resolve().parent.parent
APP = str(ROOT / "app")
CHART = """\
chart: web
current_state: a
states:
- {name: a, func: increment, current: {key: count, value: 0}, target: {name: b, when: {key: count, value: 1000000}}}
- {name: b}
"""


def main() -> None:
    """Trace a request of each method, the second of its kind: the first one fills the caches."""
    tracer = Tracer()
    # Before the pools start their threads: only a new thread takes the function over.
    threading.setprofile(tracer)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/trace.db"
        schema.upgrade(open_engine(url, create=True))
        app = create_app(Config(database_url=url))
        import_chart(service_of(app), ImportRequest(CHART), Author(actor="trace"))
        for method in ("GET", "PUT"):
            ask(app, method, "m1")
            with tracer:
                ask(app, method, "m2")
            print(f"{method}: {tracer.describe()}")
        app.extensions["stateservice.machines"].close()
        service_of(app).database.engine.dispose()


class Tracer:
    """Keeps the file and name of every function of the service that is called inside its block, on any thread."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, str]] = []
        self._is_on = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if self._is_on and event == "call" and code.co_filename.startswith(APP):
            self._calls.append((code.co_filename, code.co_qualname))

    def __enter__(self) -> None:
        self._calls, self._is_on = [], True
        sys.setprofile(self)

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        self._is_on = False

    def describe(self) -> str:
        """The figures of the last block."""
        files = [file for file, _ in self._calls]
        changes = sum(one != other for one, other in pairwise(files))
        return (
            f"{len(self._calls)} calls, {len(set(self._calls))} functions,"
            f" {len(set(files))} files, {changes} changes of file"
        )


def ask(app: Flask, method: str, machine: str) -> None:
    """Send one request to the event loop's side of the service."""
    door: StateDoor = app.extensions["stateservice.door"]
    path, query = "/charts/web/state", f"state=a&machine={machine}"
    request = Request(method=method, path=path, query_string=query, headers={}, remote_addr="127.0.0.1")
    routes = door.find_routes(request)
    assert routes is not None
    reply = asyncio.run(door.respond(request, routes))
    assert reply.status == 200, reply.body


if __name__ == "__main__":
    main()
