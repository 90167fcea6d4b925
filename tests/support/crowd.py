"""Many waiting requests at once, held by one thread: a socket each, and a selector over all of them."""

from __future__ import annotations

import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from types import TracebackType

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Held:
    """A request that was sent; `at` is when its answer had come, None until then."""

    socket: socket.socket
    received: bytes = b""
    at: float | None = None

    @property
    def status(self) -> int | None:
        """The answer's status; None for a connection that ended without one."""
        line = self.received.partition(b"\r\n")[0].split()
        return int(line[1]) if len(line) > 1 else None

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def body(self) -> str:
        return self.received.partition(b"\r\n\r\n")[2].decode()

    def receive(self) -> bool:
        """Take what has come; True once that is the whole answer, or the connection has ended."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return True
        self.received += data
        return not data or self._is_whole()

    def _is_whole(self) -> bool:
        # Of bytes, and no more of them than needed: the crowd must not take long where its answers are timed.
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if end else None
        return length is not None and len(body) >= int(length[1])


@dataclass(slots=True)
class Crowd:
    """The same question asked by many machines, each of which waits for its answer."""

    port: int
    held: list[Held] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.held:
            one.socket.close()
        self.selector.close()

    def ask(self, paths: list[str]) -> None:
        """Send one GET a path, each on a connection of its own."""
        for path in paths:
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            connection.setblocking(False)
            one = Held(connection)
            self.held.append(one)
            self.selector.register(connection, selectors.EVENT_READ, one)

    def collect(self, seconds: float, until: int | None = None) -> list[Held]:
        """Take answers until `until` of them (all, unless told) are there or `seconds` are over; return all of them."""
        deadline = time.monotonic() + seconds
        wanted = len(self.held) if until is None else until
        # Counted once: to look through thousands after each few answers would take longer than to answer them.
        count = len(self.answered())
        while count < wanted and (left := deadline - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                count += self._take(key.data)
        return self.answered()

    def answered(self) -> list[Held]:
        """Those whose answer has come, or whose connection has ended."""
        return [one for one in self.held if one.at is not None]

    def _take(self, one: Held) -> bool:
        """Receive; return True once the whole answer is there."""
        if not one.receive():
            return False
        one.at = time.monotonic()
        self.selector.unregister(one.socket)
        return True
