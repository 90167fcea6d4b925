"""The table `tokens`: a token is found by its hash; the token itself is not stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from app.core.log import format_instant
from app.db import Connection
from app.models import tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token without its secret. `pattern` says which charts it is for, with `*` and `?` as in a shell."""

    name: str
    role: str
    pattern: str
    created_at: datetime
    created_by: str | None
    revoked_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """Return the token as the command line's `--json` prints it."""
        return {
            "name": self.name,
            "role": self.role,
            "pattern": self.pattern,
            "created_at": format_instant(self.created_at),
            "created_by": self.created_by,
            "revoked_at": None if self.revoked_at is None else format_instant(self.revoked_at),
        }


_COLUMNS = tuple(tokens.c[name] for name in TokenRow.__slots__)


def add_token(connection: Connection, row: TokenRow, sha256: str) -> None:
    """Write a new token's row."""
    values = {name: getattr(row, name) for name in TokenRow.__slots__}
    connection.execute(insert(tokens).values(**values, sha256=sha256))


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


def list_tokens(connection: Connection) -> list[TokenRow]:
    """List every token, by name."""
    query = select(*_COLUMNS).order_by(tokens.c.name)
    return [TokenRow(**found) for found in connection.execute(query).mappings()]


def revoke_token(connection: Connection, name: str, now: datetime) -> None:
    """Note that a token is refused from now on."""
    connection.execute(update(tokens).where(tokens.c.name == name).values(revoked_at=now))
