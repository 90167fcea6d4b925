"""What a client sees of pgbouncer: a door in front of PostgreSQL that refuses `options` at the start of a session."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url

from tests.support.databases import url_text

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


@contextmanager
def pooler_before(url: str) -> Iterator[str]:
    """Yield the URL of a door in front of the server at `url`, whose host is the folder of a Unix socket."""
    given = make_url(url)
    behind = Path(str(given.query["host"])) / ".s.PGSQL.5432"
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_serve, args=(door, str(behind)), daemon=True).start()
        yield url_text(given.set(host="127.0.0.1", port=door.getsockname()[1]).difference_update_query(["host"]))


def _serve(door: socket.socket, behind: str) -> None:
    with suppress(OSError):
        while True:
            client, _ = door.accept()
            threading.Thread(target=_admit, args=(client, behind), daemon=True).start()


def _admit(client: socket.socket, behind: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        start = _read_start(client)
        if b"\0options\0" in start:
            client.sendall(b"E" + struct.pack("!I", len(REFUSAL) + 4) + REFUSAL)
            return
        server.connect(behind)
        server.sendall(start)
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()
        _copy(client, server)


def _read_start(client: socket.socket) -> bytes:
    """Return the packet that starts a session; requests for encryption before it are declined."""
    while True:
        head = client.recv(8, socket.MSG_WAITALL)
        length, code = struct.unpack("!II", head)
        if code not in (SSL_REQUEST, GSS_REQUEST):
            return head + client.recv(length - 8, socket.MSG_WAITALL)
        client.sendall(b"N")


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
