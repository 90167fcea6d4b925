"""The table `sessions`: who is signed in to the pages. A session is found by the hash of the secret in its cookie."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from app.db import Connection
from app.models import sessions, tokens
from app.store.tokens import TokenRow, find_token_with


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
