"""People who signed in with a token: the session knows the token's name, and is good for as long as the token is."""

from __future__ import annotations

import threading
import time

from app import store
from app.db import asking
from app.service.context import Service
from app.service.tokens import BELIEVED_SECONDS, CACHE_SIZE, Holder, read_role


class SessionCache:
    """Holders looked up lately, by the token's name, which is never used twice."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, Holder | None]] = {}
        self._lock = threading.Lock()

    def find_holder(self, service: Service, name: str) -> Holder | None:
        """Who that token's holder is; None once it is revoked, everywhere within a second."""
        with self._lock:
            until, holder = self._found.get(name, (0.0, None))
        if time.monotonic() < until:
            return holder
        holder = _read_holder(service, name)
        with self._lock:
            if len(self._found) >= CACHE_SIZE:
                self._found.clear()
            self._found[name] = (time.monotonic() + BELIEVED_SECONDS, holder)
        return holder


def _read_holder(service: Service, name: str) -> Holder | None:
    with asking(service.database) as connection:
        row = store.find_token_named(connection, name)
    if row is None or row.revoked_at is not None:
        return None
    return Holder(row.name, read_role(row.role), row.pattern)
