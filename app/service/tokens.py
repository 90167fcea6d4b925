"""Tokens, and the sessions of people who have signed in to the pages with one.

A token is created, listed and revoked here, machines enrol, and a request's token is found. A session is a row of the
database, found by a secret that only the browser's cookie has. So it belongs to one token of one database, and ends in
every process at once when the row goes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from cachetools import TTLCache

from app import store
from app.core.errors import BadRequestError, ConflictError, DatabaseUnavailableError, UnauthenticatedError
from app.core.log import Author
from app.db import Connection, asking, retrying, transaction
from app.service.context import Service

logger = logging.getLogger("stateservice.service")
# By this prefix a secret scanner, or a person, recognises a leaked secret as ours.
PREFIX = "sst_"
# How long a look-up of a token is believed. A revoked token may be accepted for this long after it was revoked.
BELIEVED_SECONDS = 0.5
# Tokens that are remembered.
CACHE_SIZE = 10_000
# The longest life that can be asked for: the databases know no instant after the year 9999.
MAX_LIFETIME = timedelta(days=36_500)
NAME_LENGTH = 128
# Not `.` or `..`, which mean a folder where they stand in a path.
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.:@-]{1,128}")
# A pattern of charts' names.
PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]{1,256}")
# Every printable id but one with a bracket, which in a pattern means something else.
_MACHINE = re.compile(r"[^\[\]]{1,255}")
_WILDCARDS = re.compile(r"[*?]")


class Role(StrEnum):
    """What a token may do; GRANTS says which roles it may act as."""

    READER = "reader"
    MACHINE = "machine"
    OPERATOR = "operator"
    ADMIN = "admin"
    ENROL = "enrol"
    APPROVER = "approver"


# The roles whose acts each role may do.
GRANTS: dict[Role, frozenset[Role]] = {
    Role.READER: frozenset({Role.READER}),
    Role.MACHINE: frozenset({Role.READER, Role.MACHINE}),
    Role.OPERATOR: frozenset({Role.READER, Role.MACHINE, Role.OPERATOR}),
    Role.ADMIN: frozenset(Role),
    Role.ENROL: frozenset({Role.ENROL}),
    Role.APPROVER: frozenset({Role.READER, Role.APPROVER}),
}
# The roles of tokens that may be for some machines alone. The others belong to people.
MACHINE_ROLES = frozenset({Role.READER, Role.MACHINE, Role.ENROL})


@dataclass(frozen=True, slots=True)
class Holder:
    """Who sends a request: a token's name, its role, its chart pattern, its machines and its number.

    `machine` is the pattern of the machines that the token may name; None if it may name any.
    """

    name: str | None
    role: Role
    pattern: str = "*"
    machine: str | None = None
    id: int | None = None

    def may(self, role: Role, chart: str | None = None) -> bool:
        """True if the holder may act as `role` and, if `chart` is given, its pattern covers that chart."""
        return role in GRANTS[self.role] and (chart is None or self.covers(chart))

    def covers(self, chart: str) -> bool:
        """True if the token's pattern covers the chart."""
        return fnmatchcase(chart, self.pattern)

    @property
    def is_for_all_charts(self) -> bool:
        """True if the token is for charts of any name."""
        return self.pattern == "*"

    @property
    def own_machine(self) -> str | None:
        """The one machine that the token is for; None if it is for any, or for several."""
        return None if self.machine is None or _WILDCARDS.search(self.machine) else self.machine

    def may_name(self, machine: str) -> bool:
        """True if the token is for this machine."""
        return self.machine is None or machine == self.machine or fnmatchcase(machine, self.machine)


# The sender of every request if tokens are not required: it may do everything, and the log names no actor.
ANYBODY = Holder(None, Role.ADMIN)


def read_role(text: str) -> Role:
    """Return the role named `text`. Raises BadRequestError."""
    try:
        return Role[text.upper()]
    except KeyError:
        raise BadRequestError(f"role {text!r} is not one of {', '.join(Role)}") from None


@retrying
def create_token(
    service: Service,
    name: str,
    role: Role,
    pattern: str,
    author: Author,
    *,
    machine: str | None = None,
    lifetime: timedelta | None = None,
) -> str:
    """Create a token and return its secret, of which the service keeps only a hash.

    Raises BadRequestError for a name or a pattern that is not allowed, ConflictError for a name that was used before.
    """
    check_wanted(name, role, pattern, machine, lifetime)
    with transaction(service.database) as connection:
        store.tokens.lock_tokens(connection)
        if store.tokens.find_token_named(connection, name) is not None:
            raise ConflictError(f"there is already a token named {name!r}; names are not used twice")
        now = service.read_now(connection)
        row = store.tokens.TokenRow(
            name=name,
            role=role,
            pattern=pattern,
            machine=machine,
            created_at=now,
            created_by=author.actor,
            expires_at=_find_end(now, lifetime),
        )
        return _add(connection, "create", row, author)


def check_wanted(name: str, role: Role, pattern: str, machine: str | None, lifetime: timedelta | None) -> None:
    """Raise BadRequestError for a token that no holder can have, whatever tokens there are."""
    if not NAME.fullmatch(name):
        raise BadRequestError(f"token name {name!r} must be 1 to {NAME_LENGTH} characters of A-Z a-z 0-9 _ . : @ -")
    if not PATTERN.fullmatch(pattern):
        raise BadRequestError(f"chart pattern {pattern!r} may contain only characters of chart names, * and ?")
    if machine is not None:
        _check_machine(machine, role)
    _check_lifetime(lifetime)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A machine's own new token, and its secret."""

    row: store.tokens.TokenRow
    secret: str


@retrying
def enrol_machine(
    service: Service, machine: str, pattern: str, author: Author, lifetime: timedelta | None = None
) -> Enrolled:
    """Give a machine a token of its own, for the charts of `pattern`.

    Raises BadRequestError for an id that cannot have one, ConflictError while the machine has one that is not revoked.
    """
    _check_machine(machine, Role.MACHINE)
    _check_lifetime(lifetime)
    if _WILDCARDS.search(machine):
        raise BadRequestError(f"machine {machine!r} is a pattern: a machine enrols by its own id")
    with transaction(service.database) as connection:
        # Two requests at one time must not give the machine two tokens.
        store.tokens.lock_tokens(connection)
        there = store.tokens.find_token_of_machine(connection, machine)
        if there is not None:
            raise ConflictError(f"machine {machine!r} has the token {there.name!r}; revoke it first")
        now = service.read_now(connection)
        row = store.tokens.TokenRow(
            name=_find_name(connection, machine),
            role=Role.MACHINE,
            pattern=pattern,
            machine=machine,
            created_at=now,
            created_by=author.actor,
            expires_at=_find_end(now, lifetime),
        )
        return Enrolled(row, _add(connection, "enrol", row, author))


def _add(connection: Connection, kind: str, row: store.tokens.TokenRow, author: Author) -> str:
    secret = PREFIX + secrets.token_urlsafe(32)
    store.tokens.add_token(connection, row, hash_secret(secret))
    store.tokens.log_token(connection, kind, row, row.created_at, author)
    return secret


def _check_machine(machine: str, role: Role) -> None:
    if role not in MACHINE_ROLES:
        raise BadRequestError(f"a token of the role {role} is for people: it cannot be for machines alone")
    if not _MACHINE.fullmatch(machine) or not machine.isprintable() or machine != machine.strip():
        raise BadRequestError(f"machine {machine!r} must be 1 to 255 printable characters without [ and ]")


def _check_lifetime(lifetime: timedelta | None) -> None:
    if lifetime is not None and not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise BadRequestError(f"a token lives longer than 0 s, and at most {MAX_LIFETIME.days} d")


def _find_end(now: datetime, lifetime: timedelta | None) -> datetime | None:
    return None if lifetime is None else now + lifetime


def _find_name(connection: Connection, machine: str) -> str:
    """A name for a machine's token that was never used: the machine's id, with a number from the second one on."""
    stem = re.sub(r"[^A-Za-z0-9_.:@-]", "_", machine)[: NAME_LENGTH - 10]
    name, number = stem, 1
    while not NAME.fullmatch(name) or store.tokens.find_token_named(connection, name) is not None:
        number += 1
        name = f"{stem}:{number}"
    return name


def list_tokens(service: Service) -> list[store.tokens.TokenRow]:
    """Every token, also each revoked one, ordered by name."""
    with asking(service.database) as connection:
        return store.tokens.list_tokens(connection)


@retrying
def revoke_token(service: Service, name: str, author: Author) -> None:
    """Revoke a token. Within a second every server refuses it.

    Raises ConflictError if there is no such token, or if it is already revoked.
    """
    with transaction(service.database) as connection:
        store.tokens.lock_tokens(connection)
        row = store.tokens.find_token_named(connection, name)
        if row is None:
            raise ConflictError(f"there is no token named {name!r}")
        if row.revoked_at is not None:
            raise ConflictError(f"the token {name!r} is already revoked")
        now = service.read_now(connection)
        store.tokens.revoke_token(connection, name, now)
        store.tokens.log_token(connection, "revoke", replace(row, revoked_at=now), now, author)


def hash_secret(secret: str) -> str:
    """Return what the database keeps of a secret. One round of SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenCache:
    """The holders of the secrets that clients sent less than BELIEVED_SECONDS ago, so that a busy machine costs one
    query per half second; and which tokens were used. Threads share it.
    """

    def __init__(self) -> None:
        self._kept: TTLCache[str, Holder] = TTLCache(CACHE_SIZE, BELIEVED_SECONDS)
        # The hour in which tokens were used, by their ids, until `write_uses` has written it.
        self._uses: dict[int, datetime] = {}
        # Reading needs the lock as well: a TTLCache also changes its order when it is read.
        self._lock = threading.Lock()

    def find(self, secret: str) -> Holder | None:
        """Whose secret it is, if it was looked up a moment ago. Does not ask the database."""
        # Not `get`: it may raise KeyError itself if the entry expires between its two steps.
        with self._lock, suppress(KeyError):
            return self._kept[hash_secret(secret)]
        return None

    def authenticate(self, service: Service, secret: str) -> Holder:
        """Return whose secret it is. Raises UnauthenticatedError, DatabaseUnavailableError."""
        found = self.find(secret)
        if found is not None:
            return found
        # Not under the lock: one slow answer of the database would delay every other request.
        found = self._read(service, hash_secret(secret))
        with self._lock:
            self._kept[hash_secret(secret)] = found
        return found

    def _read(self, service: Service, sha256: str) -> Holder:
        with asking(service.database) as connection:
            row = store.tokens.find_token(connection, sha256)
            if row is None:
                raise UnauthenticatedError("the token is unknown or revoked")
            now = service.read_now(connection)
        if has_expired(row, now):
            raise UnauthenticatedError("the token has expired")
        self.note_use(row, now)
        return build_holder(row)

    def note_use(self, row: store.tokens.TokenRow, now: datetime) -> None:
        """Remember that a token was used, until `write_uses`, unless the database has it."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        if row.id is not None and (row.last_used_at is None or row.last_used_at < hour):
            with self._lock:
                self._uses[row.id] = hour

    def write_uses(self, service: Service) -> None:
        """Write which tokens were used, all in one transaction. Raises DatabaseUnavailableError, and tries again then.

        The requests themselves only note it: thousands of machines use their tokens in the first minute of an hour.
        """
        with self._lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            with transaction(service.database) as connection:
                store.tokens.note_uses(connection, uses)
        except BaseException:
            with self._lock:
                self._uses = uses | self._uses
            raise


def has_expired(row: store.tokens.TokenRow, now: datetime) -> bool:
    """True once a token's time is over."""
    return row.expires_at is not None and row.expires_at <= now


def build_holder(row: store.tokens.TokenRow) -> Holder:
    """Who sends a request with this token."""
    return Holder(row.name, read_role(row.role), row.pattern, row.machine, row.id)


# Sessions of the pages

# A session ends when its person has opened no page for so long, and after half a day in any case.
IDLE = timedelta(hours=1)
MAX_AGE = timedelta(hours=12)
# How exactly the last use is kept: a page more often than that writes nothing.
EXACT = timedelta(minutes=1)


@retrying
def begin_session(service: Service, token_id: int) -> str:
    """Begin a session of a token, and return the secret for the browser's cookie."""
    secret = secrets.token_urlsafe(32)
    with transaction(service.database) as connection:
        now = service.read_now(connection)
        store.tokens.drop_sessions_before(connection, used=now - IDLE, created=now - MAX_AGE)
        store.tokens.add_session(connection, hash_secret(secret), token_id, now)
    return secret


@retrying
def end_session(service: Service, secret: str) -> None:
    """End a session everywhere."""
    with transaction(service.database) as connection:
        store.tokens.drop_session(connection, hash_secret(secret))


def find_session_holder(service: Service, tokens: TokenCache, secret: str, *, is_person: bool) -> Holder | None:
    """Return whose session it is; None if it has ended, or if its token has.

    `is_person` says that a person asked, and not a page that keeps itself up to date: only that keeps a session alive.
    Raises DatabaseUnavailableError.
    """
    sha256 = hash_secret(secret)
    with asking(service.database) as connection:
        found = store.tokens.find_session(connection, sha256)
        now = service.read_now(connection)
    if found is None or found.token.revoked_at is not None or has_expired(found.token, now):
        return None
    if found.used_at <= now - IDLE or found.created_at <= now - MAX_AGE:
        return None
    if is_person and found.used_at <= now - EXACT:
        _touch(service, sha256, now)
    tokens.note_use(found.token, now)
    return build_holder(found.token)


def _touch(service: Service, sha256: str, now: datetime) -> None:
    try:
        with transaction(service.database) as connection:
            store.tokens.touch_session(connection, sha256, now)
    except DatabaseUnavailableError as error:
        # The page can be shown all the same; the next page notes it.
        logger.warning("could not note that a session is in use: %s", error)
