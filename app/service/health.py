"""Whether the service could serve."""

from __future__ import annotations

from app import schema
from app.core.errors import DatabaseUnavailableError
from app.db import asking
from app.service.context import Service


def check_ready(service: Service) -> None:
    """Return if the database is reachable and migrated. Raises DatabaseUnavailableError, which says what is wrong.

    One that the next release has migrated already is served until that release takes over.
    """
    with asking(service.database) as connection:
        revision = schema.current_revision(connection.core)
    if revision != schema.head_revision() and not schema.is_later(revision):
        raise DatabaseUnavailableError(
            f"the database is at revision {revision or 'none'}, this service needs {schema.head_revision()}:"
            " run ./state_service db upgrade"
        )
