"""Sessions: people who have signed in to the pages with a token.

A session is a row of the database, found by a secret that only the browser's cookie has. So it belongs to one token of
one database, and ends in every process at once when the row goes.
"""

from __future__ import annotations

import logging
import secrets
from datetime import datetime, timedelta

from app import store
from app.core.errors import DatabaseUnavailableError
from app.db import asking, retrying, transaction
from app.service.context import Service
from app.service.tokens import Holder, TokenCache, build_holder, has_expired, hash_secret

logger = logging.getLogger("stateservice.service")
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
        store.sessions.drop_sessions_before(connection, used=now - IDLE, created=now - MAX_AGE)
        store.sessions.add_session(connection, hash_secret(secret), token_id, now)
    return secret


@retrying
def end_session(service: Service, secret: str) -> None:
    """End a session everywhere."""
    with transaction(service.database) as connection:
        store.sessions.drop_session(connection, hash_secret(secret))


def find_session_holder(service: Service, tokens: TokenCache, secret: str, *, is_person: bool) -> Holder | None:
    """Return whose session it is; None if it has ended, or if its token has.

    `is_person` says that a person asked, and not a page that keeps itself up to date: only that keeps a session alive.
    Raises DatabaseUnavailableError.
    """
    sha256 = hash_secret(secret)
    with asking(service.database) as connection:
        found = store.sessions.find_session(connection, sha256)
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
            store.sessions.touch_session(connection, sha256, now)
    except DatabaseUnavailableError as error:
        # The page can be shown all the same; the next page notes it.
        logger.warning("could not note that a session is in use: %s", error)
