"""People who signed in with a token: the session knows the token's name, and is good for as long as the token is."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase

from app import store
from app.core.errors import BadRequestError, ConflictError, UnauthenticatedError
from app.core.log import Author
from app.db import asking, retrying, transaction
from app.service.context import Service

# Lets a secret scanner, and a person, tell what it is that leaked.
PREFIX = "sst_"
# How long a token that was just looked up is believed without asking again; a revoked one is dead after that.
BELIEVED_SECONDS = 0.5
CACHE_SIZE = 10_000
_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]{1,256}")


class Role(IntEnum):
    """What a token may do; each role may do all that those before it may."""

    READER = 1
    MACHINE = 2
    OPERATOR = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sends a request: a token's name, role and chart pattern."""

    name: str | None
    role: Role
    pattern: str = "*"

    def may(self, role: Role, chart: str | None = None) -> bool:
        """True where the holder has `role` and, where a chart is meant, its pattern covers it."""
        return self.role >= role and (chart is None or fnmatchcase(chart, self.pattern))


# Without tokens everybody may do everything, and the log has no actor.
ANYBODY = Holder(None, Role.ADMIN)


def read_role(text: str) -> Role:
    """Return the role of that name. Raises BadRequestError."""
    try:
        return Role[text.upper()]
    except KeyError:
        raise BadRequestError(f"role {text!r} is none of {', '.join(str(role) for role in Role)}") from None


@retrying
def create_token(service: Service, name: str, role: Role, pattern: str, author: Author) -> str:
    """Make a token and return its secret, which is kept nowhere. Raises BadRequestError, ConflictError."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(f"token name {name!r} is not 1 to 128 characters of A-Z a-z 0-9 _ . : @ -")
    if not _PATTERN.fullmatch(pattern):
        raise BadRequestError(f"chart pattern {pattern!r} is not made of chart names' characters, * and ?")
    secret = PREFIX + secrets.token_urlsafe(32)
    with transaction(service.database) as connection:
        if store.tokens.find_token_named(connection, name) is not None:
            raise ConflictError(f"there is a token named {name!r} already; names are not used twice")
        now = service.now(store.charts.read_now(connection))
        row = store.tokens.TokenRow(name, str(role), pattern, now, author.actor, None)
        store.tokens.add_token(connection, row, hash_secret(secret))
    return secret


def list_tokens(service: Service) -> list[store.tokens.TokenRow]:
    """Every token, by name, revoked ones too."""
    with asking(service.database) as connection:
        return store.tokens.list_tokens(connection)


@retrying
def revoke_token(service: Service, name: str) -> None:
    """Make a token good for nothing, everywhere within a second. Raises BadRequestError, ConflictError."""
    with transaction(service.database) as connection:
        row = store.tokens.find_token_named(connection, name)
        if row is None:
            raise ConflictError(f"there is no token named {name!r}")
        if row.revoked_at is not None:
            raise ConflictError(f"the token {name!r} is revoked already")
        store.tokens.revoke_token(connection, name, service.now(store.charts.read_now(connection)))


def hash_secret(secret: str) -> str:
    """What the database keeps of a secret: it has 256 random bits, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenCache:
    """Tokens looked up lately, by hash, so that a busy machine costs one look-up every half second."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, Holder]] = {}
        self._lock = threading.Lock()

    def find(self, secret: str) -> Holder | None:
        """Whose secret it is, if it was looked up a moment ago; does not ask the database."""
        with self._lock:
            until, holder = self._found.get(hash_secret(secret), (0.0, ANYBODY))
        return holder if time.monotonic() < until else None

    def authenticate(self, service: Service, secret: str) -> Holder:
        """Return whose secret it is. Raises UnauthenticatedError, DatabaseUnavailableError."""
        sha256 = hash_secret(secret)
        with self._lock:
            until, holder = self._found.get(sha256, (0.0, ANYBODY))
        if time.monotonic() < until:
            return holder
        with asking(service.database) as connection:
            row = store.tokens.find_token(connection, sha256)
        if row is None:
            raise UnauthenticatedError("the token is unknown or revoked")
        holder = Holder(row.name, read_role(row.role), row.pattern)
        with self._lock:
            if len(self._found) >= CACHE_SIZE:
                self._found.clear()
            self._found[sha256] = (time.monotonic() + BELIEVED_SECONDS, holder)
        return holder


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
        row = store.tokens.find_token_named(connection, name)
    if row is None or row.revoked_at is not None:
        return None
    return Holder(row.name, read_role(row.role), row.pattern)
