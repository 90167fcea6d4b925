"""The worker that gunicorn runs: the event loop, what works beside it, and the bridge to Flask.

The requests of machines are answered on the event loop (app/web/state.py). Everything else goes to Flask on a pool of
threads. gunicorn.conf.py has the settings.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from tempfile import SpooledTemporaryFile
from typing import IO, Any, ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Flask
from gunicorn.asgi import parser, protocol
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker
from prometheus_client.multiprocess import mark_process_dead

from app.config import Config
from app.core.errors import StateServiceError
from app.logs import JsonMessage, choose_formatter
from app.metric_files import FOLDER, prepare_files
from app.service import metrics
from app.service.context import Service
from app.service.machines import Machines, ThreadPool
from app.service.past import Checkpointer
from app.service.put import find_next_due, prepare, settle_clock, sweep
from app.service.subscriptions import Deliverer
from app.service.verifying import SignedHead, list_heads
from app.waiting.places import Places, SharedPlaces, Turn
from app.web.replies import Reply, is_seed_target
from app.web.request import (
    CAN_WAIT,
    ERROR,
    HAS_WAITED,
    MAX_BODY,
    MAX_ROSTER_BODY,
    MAX_SENT,
    NOTE_BYTES,
    REQUEST,
    Environ,
    MustWait,
    Request,
    request_from_scope,
)
from app.web.state import Route, StateDoor

logger = logging.getLogger("stateservice.serving")
heads_logger = logging.getLogger("stateservice.heads")
T = TypeVar("T")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Of a body that is too large, this much is read after the answer, for DRAIN_SECONDS: a client whose body is cut off may
# never see the answer.
MAX_DRAIN = 64 * 1024 * 1024
DRAIN_SECONDS = 2.0
# Seconds that a client has to send the head of its first request, and a body.
HEAD_SECONDS = 30.0
BODY_SECONDS = 60.0
# How often the heads of the logs are written to the service's log.
HEADS_SECONDS = 300.0
# Charts that come due within this time are made ready to move.
AHEAD = timedelta(seconds=10)
# What tells a process to end.
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

# gunicorn's table lacks 406, which this service answers most. All are written as Flask writes them, on every server.
protocol._REASON_PHRASES.update({status.value: status.phrase.upper() for status in HTTPStatus})
# curl sends UTF-8 in an address as it is; gunicorn's parser would refuse it.
parser.RFC9112_TARGET_INVALID = re.compile(rb"[^\x21-\x7e\x80-\xff]")


class Sweeper:
    """A thread that performs due clock guards of charts that no request touches.

    Every worker runs one; the chart's row lock, and judging again under it, make each transition happen once.
    """

    def __init__(self, service: Service, seconds: float, chores: Sequence[Callable[[], None]] = ()) -> None:
        """`chores` are what else is done after each pass, each in a short transaction of its own."""
        self._service = service
        self._seconds = seconds
        self._heads: dict[str, SignedHead] = {}
        self._chores = chores
        # Until when the definitions of charts that come due were read, on the monotonic clock.
        self._prepared_until = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """End after the pass in hand."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        wait = self._seconds
        while not self._stopping.wait(wait):
            wait = self._seconds
            try:
                sweep(self._service)
                metrics.sweep_is_done()
                self._write_heads()
                for chore in self._chores:
                    chore()
                due_in = find_next_due(self._service)
                settle_clock(self._service, due_in)
                # A chart that is due still is a cycle, or one that another transaction holds: it waits for its turn.
                if due_in is not None and due_in.total_seconds() > 0:
                    self._prepare(due_in)
                    wait = min(wait, due_in.total_seconds())
            except StateServiceError as error:
                logger.warning("could not look for due clock guards, will try again: %s", error)
            except Exception:
                logger.exception("the sweeper failed, and will try again")

    def _prepare(self, due_in: timedelta) -> None:
        if due_in < AHEAD and time.monotonic() >= self._prepared_until:
            prepare(self._service, AHEAD)
            self._prepared_until = time.monotonic() + AHEAD.total_seconds()

    def _write_heads(self) -> None:
        """Write the head of every log that has grown since this process wrote it; one worker of the server at a time.

        With the key, no other program can sign a head. Without it, a head is at least not in the database.
        """
        if not self._service.hub.places.take_turn(Turn.HEADS, HEADS_SECONDS):
            return
        for head in list_heads(self._service):
            if self._heads.get(head.chart) != head:
                self._heads[head.chart] = head
                heads_logger.info(JsonMessage({"event": "log head", **head.as_json()}))


def start(app: Flask, places: Places | None = None) -> None:
    """Start what works beside the requests. Called once in each process that serves.

    `places` counts the waiters of all workers of this server; without it each process counts its own.
    """
    service: Service = app.extensions["stateservice"]
    config: Config = app.extensions["stateservice.config"]
    if places is not None:
        service.hub.places = places
    sweeper = app.extensions["stateservice.sweeper"] = Sweeper(
        service, config.sweep_seconds, [app.extensions["stateservice.access"].write_uses]
    )
    deliverer = app.extensions["stateservice.deliverer"] = Deliverer(service)
    checkpointer = app.extensions["stateservice.checkpointer"] = Checkpointer(service)
    service.after_commit = (*service.after_commit, deliverer.note_commit)
    service.hub.start()
    sweeper.start()
    deliverer.start()
    checkpointer.start()


def release_waiters(app: Flask) -> None:
    """Answer every waiting request at once: the server was told to stop. Safe in a signal handler."""
    app.extensions["stateservice"].hub.close()


def stop(app: Flask | None) -> None:
    """Stop what `start` started, if it did; the sweeper ends between two transactions and not within one."""
    sweeper = None if app is None else app.extensions.get("stateservice.sweeper")
    if app is not None and sweeper is not None:
        release_waiters(app)
        app.extensions["stateservice.checkpointer"].stop()
        app.extensions["stateservice.deliverer"].stop()
        sweeper.stop()


class Door:
    """The ASGI application: the requests of machines on the event loop, everything else through Flask."""

    def __init__(self, app: Flask) -> None:
        config: Config = app.extensions["stateservice.config"]
        self._app = app
        self._state: StateDoor = app.extensions["stateservice.door"]
        self._proxy_hops = config.proxy_hops
        self._threads = ThreadPool(config.threads, "flask")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A WebSocket: refused with 403 by the server.
            await send({"type": "websocket.close"})
            return
        scope["path"] = read_path(scope["raw_path"])
        request = request_from_scope(scope, self._proxy_hops)
        body = Body(request, receive)
        routes = self._state.find_routes(request)
        if routes is not None:
            await self._answer(request, routes, body, send)
        else:
            await self._answer_by_flask(scope, request, body, send)
        await body.drain()

    async def _answer(self, request: Request, routes: dict[str, Route], body: Body, send: Send) -> None:
        request.body_end = await self._unless_gone(request, body.read_end(NOTE_BYTES))
        reply = await self._state.respond(request, routes)
        await send_reply(send, reply, is_head=request.method == "HEAD")

    async def _answer_by_flask(self, scope: Scope, request: Request, body: Body, send: Send) -> None:
        run = await self._unless_gone(request, self._prepare(scope, request, body, send))
        try:
            await self._threads.run(run)
            if run.must_wait is not None:
                error = await self._unless_gone(request, find_error(run.must_wait.wait()))
                run = run.again(error)
                await self._threads.run(run)
        except asyncio.CancelledError:
            run.is_gone = True
            raise
        await run.send_rest()

    async def _prepare(self, scope: Scope, request: Request, body: Body, send: Send) -> FlaskRun:
        """Receive the body. That of a roster may be large: it is not read if the caller may not import one."""
        is_import, error = is_roster_import(request), None
        content: IO[bytes] | None = io.BytesIO()
        if is_import:
            error = await find_error(self._threads.run(partial(self._state.admit_upload, request)))
        if error is None:
            content = await body.read(MAX_ROSTER_BODY if is_import else MAX_BODY)
        return FlaskRun(self._app, {**build_environ(scope, request, content, body), ERROR: error}, send)

    async def _unless_gone(self, request: Request, awaited: Awaitable[T]) -> T:
        """Return what `awaited` returns; if the caller hangs up before that, count and log the request."""
        try:
            return await awaited
        except asyncio.CancelledError:
            self._state.note_gone(request)
            raise


async def find_error(awaited: Awaitable[object]) -> StateServiceError | None:
    """Return the error of the service's own tree that `awaited` raises; None if it raises none."""
    try:
        await awaited
    except StateServiceError as error:
        return error
    return None


def read_path(target: bytes) -> str:
    """Return the path of a request as WSGI has it: its bytes, without loss, as Latin-1.

    A target in absolute form loses its scheme and host: the Host header counts. Several slashes at the beginning are
    one.
    """
    if not target.startswith(b"/") and b"://" in target:
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return "/" + unquote_to_bytes(target).decode("latin-1").lstrip("/")


class Body:
    """The body of a request, as far as it is read."""

    def __init__(self, request: Request, receive: Receive) -> None:
        length = request.headers.get("content-length", "")
        self.declared = int(length) if length.isascii() and length.isdigit() else 0
        self._receive = receive
        self._is_over = not self.declared and "transfer-encoding" not in request.headers
        self._expects_leave = "expect" in request.headers
        self._size = 0
        # The connection broke before the end of the body: what came must not be taken for the whole.
        self._is_cut = False

    @property
    def size(self) -> int:
        """How many bytes were received so far."""
        return self._size

    async def read(self, limit: int = MAX_BODY) -> IO[bytes] | None:
        """Return the whole body; None if it is larger than `limit`, or does not come whole and in time.

        What is larger than MAX_BODY is kept in a temporary file.
        """
        # It is closed when the request is over and nothing refers to it any more.
        kept: IO[bytes] = SpooledTemporaryFile(max_size=MAX_BODY) if limit > MAX_BODY else io.BytesIO()  # noqa: SIM115  # see above
        if not await self._receive_all(limit, kept.write):
            kept.close()
            return None
        kept.seek(0)
        return kept

    async def read_end(self, size: int) -> bytes | None:
        """Receive the whole body and return its last `size` bytes.

        None if the body is larger than MAX_SENT, or does not come whole and in time.
        """
        if self._is_over:
            return b""
        end = bytearray()

        def keep(piece: bytes) -> None:
            end.extend(piece)
            del end[:-size]

        return bytes(end) if await self._receive_all(MAX_SENT, keep) else None

    async def _receive_all(self, limit: int, keep: Callable[[bytes], object]) -> bool:
        if self.declared > limit:
            return False
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not self._is_over and self._size <= limit:
                    keep(await self._read_piece())
        except TimeoutError:
            return False
        return self._size <= limit and not self._is_cut

    async def drain(self) -> None:
        """Read the rest of the body, within limits, so that the client sees the answer before the connection closes."""
        if self._is_over or (self._expects_leave and not self._size):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                limit = self._size + MAX_DRAIN
                while not self._is_over and self._size <= limit:
                    await self._read_piece()

    async def _read_piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._is_over = self._is_cut = True
            return b""
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        self._is_over = not message.get("more_body", False)
        return piece


class FlaskRun:
    """One call of the Flask application on a thread; its body is handed to the event loop piece by piece."""

    def __init__(self, app: Flask, environ: Environ, send: Send) -> None:
        self.must_wait: MustWait | None = None
        # Set once the client is gone: nothing more is sent, nor read from the database.
        self.is_gone = False
        self._app = app
        self._environ = environ
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._start: dict[str, Any] = {}
        self._rest: bytes | None = None

    def again(self, error: StateServiceError | None) -> FlaskRun:
        """The second call, after what the view wanted to wait for, or after the error that ended the wait."""
        return FlaskRun(self._app, {**self._environ, HAS_WAITED: True, ERROR: error}, self._send)

    def __call__(self) -> None:
        """Run the application. The last piece of its body, most often the only one, is kept for `send_rest`."""
        try:
            pieces = self._app.wsgi_app(self._environ, self._take_status)
        except MustWait as wait:
            self.must_wait = wait
            return
        try:
            for piece in pieces:
                if self.is_gone:
                    return
                if self._rest is not None and not self._push(self._rest):
                    return
                self._rest = piece
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _push(self, piece: bytes) -> bool:
        """Hand a piece to the event loop, and wait until the client has room for more; False if the client is gone."""
        sending = asyncio.run_coroutine_threadsafe(self._send_piece(piece, more=True), self._loop)
        while not self.is_gone:
            try:
                sending.result(1.0)
            except TimeoutError:
                # The server does not end a send whose client is gone: nothing would wake this thread.
                continue
            return True
        sending.cancel()
        return False

    async def send_rest(self) -> None:
        """Send what the thread left: the head, unless it is sent, and the last piece."""
        await self._send_piece(self._rest or b"", more=False)

    def _take_status(self, status: str, headers: Iterable[tuple[str, str]], exc_info: object = None) -> Any:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._start = {"type": "http.response.start", "status": int(status[:3]), "headers": raw}

    async def _send_piece(self, piece: bytes, *, more: bool) -> None:
        if self._start:
            await self._send(self._start)
            self._start = {}
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})


async def send_reply(send: Send, reply: Reply, *, is_head: bool) -> None:
    """Send a reply that is complete."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.raw_headers})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.body})


def is_roster_import(request: Request) -> bool:
    """True if the request imports a roster, whose body may be large."""
    return request.method == "PUT" and request.path.startswith("/rosters/")


def build_environ(scope: Scope, request: Request, content: IO[bytes] | None, body: Body) -> Environ:
    """Return the WSGI environment of a request. A body that was too large (None) keeps the length that it declared."""
    server, client = scope.get("server") or ("", None), scope.get("client")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "SERVER_NAME": server[0] or "localhost",
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0] if client else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO() if content is None else content,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        CAN_WAIT: True,
        REQUEST: request,
    }
    for name, value in request.headers.items():
        # The body is read: it is no longer chunked.
        if name not in ("content-type", "content-length", "transfer-encoding"):
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    environ["CONTENT_TYPE"] = request.headers.get("content-type", "")
    too_large = (MAX_ROSTER_BODY if is_roster_import(request) else MAX_BODY) + 1
    environ["CONTENT_LENGTH"] = str(max(body.declared, too_large) if content is None else body.size)
    return environ


class Connection(protocol.ASGIProtocol):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's connection, which knows when it is idle, and does not wait for ever for a first request."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection; answer 503 if there are too many."""
        connections = self.worker.connections
        if len(connections) >= self.worker.worker_connections:
            self._closed = self._conn_lost_handled = True
            transport.write(_BUSY)
            transport.close()
            return
        connections.add(self)
        super().connection_made(transport)
        self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. A request that waits on it is cancelled: its caller is gone."""
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def _send_error_response(self, status: int, message: str, extra_headers: Sequence[Any] = ()) -> None:
        """Refuse what is no request, or too long for one: with 500 on a path of the default chart."""
        found = self._callback_parser
        target = getattr(found, "path", None) or bytes(getattr(found, "_buffer", b"")[:64]).partition(b" ")[2]
        super()._send_error_response(500 if is_seed_target(target) else status, message, extra_headers)

    def close_if_idle(self) -> None:
        """Close the connection if no request is being answered on it."""
        if getattr(self, "_awaiting_request", False):
            self._request_ready.set()
            self._close_transport()

    def _close_if_silent(self) -> None:
        if self.req_count <= 1:
            self.close_if_idle()


class Worker(ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's event-loop worker for this service.

    It stops at once when it is told to: waiting requests are answered, idle connections closed, the others finished.
    """

    # Counts the waiters of all workers; made by the master before it forks.
    places: ClassVar[SharedPlaces | None] = None
    # Set by post_fork: until a worker has signal handlers of its own, its master's put what comes into this copy.
    signals_at_birth: Any = None

    def init_process(self) -> None:
        """Give this worker's counters their room, and begin."""
        folder = os.environ.get(FOLDER)
        if folder is None or not prepare_files(folder):
            metrics.stop_counting()
            logger.warning("no room for the files that requests are counted in: this worker counts none for /metrics")
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application, and put the event loop before it."""
        self.flask: Flask = self.app.wsgi()
        self.connections: set[Connection] = set()
        self._told_to_stop = asyncio.Event()
        machines: Machines = self.flask.extensions["stateservice.machines"]
        machines.attach(self.loop)
        self.asgi = Door(self.flask)
        # What is loaded stays. Without this, the end of the process looks through all of it for what can go.
        gc.freeze()

    def init_signals(self) -> None:
        """Listen to signals, and heed those that came before.

        gunicorn tells a worker once to stop. A worker that was forked in that moment would miss it and serve on, and
        its master would wait for it the whole graceful_timeout.
        """
        super().init_signals()
        # A terminal that closes tells every process of its group. The master decides what that means.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while not self.signals_at_birth.empty():
            if self.signals_at_birth.get_nowait() in STOPS:
                self.handle_exit_signal()

    def handle_exit_signal(self) -> None:
        """End in order: no request waits any longer, so it takes no time."""
        self.alive = False
        if hasattr(self, "flask"):
            release_waiters(self.flask)
            self._told_to_stop.set()

    def handle_quit_signal(self) -> None:
        """As SIGTERM: Ctrl-C reaches a worker as SIGINT from the terminal and as SIGQUIT from the master."""
        self.handle_exit_signal()

    def run(self) -> None:
        """Serve until told to stop."""
        places = None if Worker.places is None else Worker.places.own(self.age)
        start(self.flask, places)
        try:
            super().run()
        finally:
            stop(self.flask)

    async def _serve(self) -> None:
        for sock in self.sockets:
            server = await self.loop.create_server(lambda: Connection(self), sock=sock.sock, backlog=self.cfg.backlog)
            self.servers.append(server)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), 1.0)
        self.handle_exit_signal()
        for server in self.servers:
            server.close()
        await self._finish()

    async def _finish(self) -> None:
        """Let the requests in hand be answered, within graceful_timeout; close connections as they become idle."""
        deadline = self.loop.time() + self.cfg.graceful_timeout
        while self.connections and self.loop.time() < deadline:
            self.notify()
            for connection in list(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.02)


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own log, in the form of this service's: short lines on a terminal, else one JSON object a line."""

    def setup(self, cfg: Any) -> None:
        """Set gunicorn's log up, and give it our format."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(choose_formatter(getattr(handler, "stream", None)))


def forget_worker(worker: Worker) -> None:
    """Forget the waiters of a worker that is gone, however it went; what it has counted stays. Called by the master."""
    if Worker.places is not None:
        Worker.places.own(worker.age).clear()
    with suppress(OSError):
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # the library's
