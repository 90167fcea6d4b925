"""Tokens: creating, listing and revoking them, and finding out whose token a request carries.

A request carries a token's secret, or a browser session that names a token. A session ends when its token is revoked.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from cachetools import TTLCache

from app import store
from app.core.errors import BadRequestError, ConflictError, UnauthenticatedError
from app.core.log import Author
from app.db import asking, retrying, transaction
from app.service.context import Service

# By this prefix a secret scanner, or a person, recognises a leaked secret as ours.
PREFIX = "sst_"
# How long a look-up of a token is believed. A revoked token may be accepted for this long after it was revoked.
BELIEVED_SECONDS = 0.5
# Tokens, and sessions, that are remembered.
CACHE_SIZE = 10_000
_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]{1,256}")

Found = TypeVar("Found")


class Role(IntEnum):
    """What a token may do. Each role may also do what the roles before it may."""

    READER = 1
    MACHINE = 2
    OPERATOR = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sends a request: a token's name, its role and its chart pattern."""

    name: str | None
    role: Role
    pattern: str = "*"

    def may(self, role: Role, chart: str | None = None) -> bool:
        """True if the holder has at least `role` and, if `chart` is given, its pattern covers that chart."""
        return self.role >= role and (chart is None or fnmatchcase(chart, self.pattern))


# The sender of every request if tokens are not required: it may do everything, and the log names no actor.
ANYBODY = Holder(None, Role.ADMIN)


def read_role(text: str) -> Role:
    """Return the role named `text`. Raises BadRequestError."""
    try:
        return Role[text.upper()]
    except KeyError:
        raise BadRequestError(f"role {text!r} is not one of {', '.join(str(role) for role in Role)}") from None


@retrying
def create_token(service: Service, name: str, role: Role, pattern: str, author: Author) -> str:
    """Create a token and return its secret, of which the service keeps only a hash.

    Raises BadRequestError for a name or pattern that is not allowed, ConflictError for a name that was used before.
    """
    if not _NAME.fullmatch(name):
        raise BadRequestError(f"token name {name!r} must be 1 to 128 characters of A-Z a-z 0-9 _ . : @ -")
    if not _PATTERN.fullmatch(pattern):
        raise BadRequestError(f"chart pattern {pattern!r} may contain only characters of chart names, * and ?")
    secret = PREFIX + secrets.token_urlsafe(32)
    with transaction(service.database) as connection:
        if store.tokens.find_token_named(connection, name) is not None:
            raise ConflictError(f"there is already a token named {name!r}; names are not used twice")
        now = service.now(store.charts.read_now(connection))
        row = store.tokens.TokenRow(
            name=name, role=str(role), pattern=pattern, created_at=now, created_by=author.actor, revoked_at=None
        )
        store.tokens.add_token(connection, row, hash_secret(secret))
    return secret


def list_tokens(service: Service) -> list[store.tokens.TokenRow]:
    """Every token, also each revoked one, ordered by name."""
    with asking(service.database) as connection:
        return store.tokens.list_tokens(connection)


@retrying
def revoke_token(service: Service, name: str) -> None:
    """Revoke a token. Within a second every server refuses it.

    Raises ConflictError if there is no such token, or if it is already revoked.
    """
    with transaction(service.database) as connection:
        row = store.tokens.find_token_named(connection, name)
        if row is None:
            raise ConflictError(f"there is no token named {name!r}")
        if row.revoked_at is not None:
            raise ConflictError(f"the token {name!r} is already revoked")
        store.tokens.revoke_token(connection, name, service.now(store.charts.read_now(connection)))


def hash_secret(secret: str) -> str:
    """Return what the database keeps of a secret. One round of SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class _HolderCache(Generic[Found]):
    """What was looked up less than BELIEVED_SECONDS ago. Threads share it."""

    def __init__(self) -> None:
        self._kept: TTLCache[str, Found] = TTLCache(CACHE_SIZE, BELIEVED_SECONDS)
        # Reading needs the lock as well: a TTLCache also changes its order when it is read.
        self._lock = threading.Lock()

    def _find(self, key: str) -> Found | None:
        """Return what is kept under `key`, if anything is."""
        # Not `get`: it may raise KeyError itself if the entry expires between its two steps.
        with self._lock, suppress(KeyError):
            return self._kept[key]
        return None

    def _get(self, key: str, read: Callable[[], Found]) -> Found:
        """Return what is kept under `key`, else what `read` returns. An error that `read` raises is not kept."""
        try:
            with self._lock:
                return self._kept[key]
        except KeyError:
            pass
        # Not under the lock: one slow answer of the database would delay every other request.
        found = read()
        with self._lock:
            self._kept[key] = found
        return found


class TokenCache(_HolderCache[Holder]):
    """The holders of the secrets that clients sent last, so that a busy machine costs one query per half second."""

    def find(self, secret: str) -> Holder | None:
        """Whose secret it is, if it was looked up a moment ago. Does not ask the database."""
        return self._find(hash_secret(secret))

    def authenticate(self, service: Service, secret: str) -> Holder:
        """Return whose secret it is. Raises UnauthenticatedError, DatabaseUnavailableError."""
        sha256 = hash_secret(secret)
        return self._get(sha256, lambda: _get_holder(service, sha256))


class SessionCache(_HolderCache[Holder | None]):
    """The holders of the sessions that were used last, by the token's name, which is never used twice."""

    def find_holder(self, service: Service, name: str) -> Holder | None:
        """Return the holder of the token `name`; None within a second after the token was revoked.

        Raises DatabaseUnavailableError.
        """
        return self._get(name, lambda: _find_holder(service, name))


def _get_holder(service: Service, sha256: str) -> Holder:
    with asking(service.database) as connection:
        row = store.tokens.find_token(connection, sha256)
    if row is None:
        raise UnauthenticatedError("the token is unknown or revoked")
    return _build_holder(row)


def _find_holder(service: Service, name: str) -> Holder | None:
    with asking(service.database) as connection:
        row = store.tokens.find_token_named(connection, name)
    return None if row is None or row.revoked_at is not None else _build_holder(row)


def _build_holder(row: store.tokens.TokenRow) -> Holder:
    return Holder(row.name, read_role(row.role), row.pattern)
