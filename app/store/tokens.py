"""Tokens: found by their hash, never kept themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from app.core.log import format_instant
from app.db import Connection
from app.models import tokens


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token without its secret. `pattern` says which charts it is good for, `*` and `?` as in a shell."""

    name: str
    role: str
    pattern: str
    created_at: datetime
    created_by: str | None
    revoked_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The token as `--json` gives it."""
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
    """The token with that hash, revoked ones left out. Reader: every request once tokens are required."""
    query = select(*_COLUMNS).where(tokens.c.sha256 == sha256, tokens.c.revoked_at.is_(None))
    found = connection.execute(query).one_or_none()
    return None if found is None else TokenRow(*found)


def find_token_named(connection: Connection, name: str) -> TokenRow | None:
    """The token of that name, revoked or not."""
    found = connection.execute(select(*_COLUMNS).where(tokens.c.name == name)).one_or_none()
    return None if found is None else TokenRow(*found)


def list_tokens(connection: Connection) -> list[TokenRow]:
    """Every token, by name."""
    return [TokenRow(*found) for found in connection.execute(select(*_COLUMNS).order_by(tokens.c.name))]


def revoke_token(connection: Connection, name: str, now: datetime) -> None:
    """Note that a token is good for nothing from now on."""
    connection.execute(update(tokens).where(tokens.c.name == name).values(revoked_at=now))
