"""The tables `tokens`, `token_log` and `sessions`: tokens, and who is signed in to the pages with one.

A token is found by its hash, and a session by the hash of the secret in its cookie; neither secret is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, text, update

from app.core.log import Author, format_instant
from app.db import Connection
from app.models import sessions, token_log, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token without its secret. `pattern` says which charts it is for, with `*` and `?` as in a shell.

    `machine` says in the same way which machines it may name; None if it may name any. `id` is None until it is stored.
    """

    name: str
    role: str
    pattern: str
    machine: str | None = None
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    id: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the token as HTTP and the command line's `--json` show it."""
        found = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "id"}
        return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in found.items()}


_NAMES = [item.name for item in fields(TokenRow)]
_COLUMNS = tuple(tokens.c[name] for name in _NAMES)


def add_token(connection: Connection, row: TokenRow, sha256: str) -> None:
    """Write a new token's row."""
    values = {name: getattr(row, name) for name in _NAMES if name != "id"}
    connection.execute(insert(tokens).values(**values, sha256=sha256))


def lock_tokens(connection: Connection) -> None:
    """Let no other transaction make a token until this one ends. On SQLite no other transaction writes anyway."""
    if not connection.is_sqlite:
        connection.execute(text("LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE"))


def find_token(connection: Connection, sha256: str) -> TokenRow | None:
    """Return the token with this hash; None if there is none or it is revoked.

    Used by: every request, if tokens are required.
    """
    query = select(*_COLUMNS).where(tokens.c.sha256 == sha256, tokens.c.revoked_at.is_(None))
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else TokenRow(**found)


def find_token_named(connection: Connection, name: str) -> TokenRow | None:
    """Return the token with this name, revoked or not; None if there is none."""
    query = select(*_COLUMNS).where(tokens.c.name == name)
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else TokenRow(**found)


def find_token_with(connection: Connection, token_id: int) -> TokenRow | None:
    """Return the token with this id, revoked or not. Used by: every request of a browser."""
    found = connection.execute(select(*_COLUMNS).where(tokens.c.id == token_id)).mappings().one_or_none()
    return None if found is None else TokenRow(**found)


def find_token_of_machine(connection: Connection, machine: str) -> TokenRow | None:
    """Return a token that is for this machine alone and not revoked; None if there is none."""
    query = select(*_COLUMNS).where(tokens.c.machine == machine, tokens.c.revoked_at.is_(None)).limit(1)
    found = connection.execute(query).mappings().first()
    return None if found is None else TokenRow(**found)


def list_tokens(connection: Connection) -> list[TokenRow]:
    """List every token, by name."""
    query = select(*_COLUMNS).order_by(tokens.c.name)
    return [TokenRow(**found) for found in connection.execute(query).mappings()]


def revoke_token(connection: Connection, name: str, now: datetime) -> None:
    """Note that a token is refused from now on."""
    connection.execute(update(tokens).where(tokens.c.name == name).values(revoked_at=now))


def note_uses(connection: Connection, uses: Mapping[int, datetime]) -> None:
    """Write when tokens, by their ids, were last used."""
    # In the order of the ids, as every writer of several rows does.
    for token_id in sorted(uses):
        connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=uses[token_id]))


def log_token(connection: Connection, kind: str, row: TokenRow, now: datetime, author: Author) -> None:
    """Write down who did what to a token, in the log that keeps it."""
    values = {name: getattr(row, name) for name in ("role", "pattern", "machine", "expires_at")}
    values |= {"at": now, "kind": kind, "token": row.name, "actor": author.actor, "remote_addr": author.remote_addr}
    connection.execute(insert(token_log).values(values))


# Sessions


class SessionRow(NamedTuple):
    """A session and the token that it belongs to, which may be revoked or expired."""

    token: TokenRow
    created_at: datetime
    used_at: datetime


def add_session(connection: Connection, sha256: str, token_id: int, now: datetime) -> None:
    """Write a new session's row."""
    values = {"sha256": sha256, "token_id": token_id, "created_at": now, "used_at": now}
    connection.execute(insert(sessions).values(values))


def find_session(connection: Connection, sha256: str) -> SessionRow | None:
    """Return the session with this hash; None if there is none. Used by: every request of a browser."""
    query = select(sessions.c.token_id, sessions.c.created_at, sessions.c.used_at).where(sessions.c.sha256 == sha256)
    found = connection.execute(query).one_or_none()
    token = None if found is None else find_token_with(connection, found.token_id)
    return None if found is None or token is None else SessionRow(token, found.created_at, found.used_at)


def touch_session(connection: Connection, sha256: str, now: datetime) -> None:
    """Note that a person has used a session."""
    connection.execute(update(sessions).where(sessions.c.sha256 == sha256).values(used_at=now))


def drop_session(connection: Connection, sha256: str) -> None:
    """End a session."""
    connection.execute(delete(sessions).where(sessions.c.sha256 == sha256))


def drop_sessions_before(connection: Connection, used: datetime, created: datetime) -> None:
    """Drop the sessions that were last used before `used`, began before `created`, or whose token is revoked."""
    revoked = select(tokens.c.id).where(tokens.c.revoked_at.is_not(None))
    is_over = (sessions.c.used_at < used) | (sessions.c.created_at < created) | sessions.c.token_id.in_(revoked)
    connection.execute(delete(sessions).where(is_over))
