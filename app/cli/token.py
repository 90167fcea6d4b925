"""`./state_service token`: create, list and revoke tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import click

from app.cli.shared import Age, config_of, current_author, exits_on_error, open_service, print_json, print_table
from app.service import tokens
from app.service.tokens import Role


@click.group("token", short_help="Tokens: create, list, revoke.")
def group() -> None:
    """Tokens: who may do what to which charts."""


@group.command(
    "create",
    epilog="Example: ./state_service token create web-01 --role machine --machine web-01 --expires 90d",
)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([str(role) for role in Role]), help="What the token allows.")
@click.option("--charts", "pattern", default="*", show_default=True, metavar="PATTERN", help="The charts it is for.")
@click.option("--machine", metavar="PATTERN", help="The machines that it may name; else any.")
@click.option(
    "--expires", "lifetime", type=Age(), metavar="AGE", help="How long it is good for, such as 90d; else ever."
)
@click.pass_context
@exits_on_error
def create(
    context: click.Context, name: str, role: str, pattern: str, machine: str | None, lifetime: timedelta | None
) -> None:
    """Create a token called NAME, and print its secret, which is not stored.

    The log records NAME as the actor of every request with this token. In PATTERN, * stands for any characters and
    ? for one. With --machine, a request that names another machine is refused, and one that names none is about that
    machine.
    """
    service = open_service(config_of(context))
    secret = tokens.create_token(
        service, name, tokens.read_role(role), pattern, current_author(), machine=machine, lifetime=lifetime
    )
    print_secret(secret)


def print_secret(secret: str) -> None:
    """Print a new token's secret on standard output, and how to use it beside that."""
    click.echo("Shown only once. Send it as: curl -H 'Authorization: Bearer TOKEN' ...", err=True)
    click.echo(secret)


COLUMNS = (
    "name",
    "role",
    "pattern",
    "machine",
    "created_at",
    "created_by",
    "expires_at",
    "last_used_at",
    "revoked_at",
)


@group.command("list", epilog="Example: ./state_service token list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every token, also those that are revoked; never a secret. LAST_USED_AT is exact to the hour."""
    print_tokens([row.as_json() for row in tokens.list_tokens(open_service(config_of(context)))], as_json=as_json)


def print_tokens(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print tokens as JSON or as a table."""
    if as_json:
        print_json(found)
        return
    print_table([name.upper() for name in COLUMNS], [[row[name] for name in COLUMNS] for row in found])


@group.command("revoke", epilog="Example: ./state_service token revoke web-fleet")
@click.argument("name")
@click.pass_context
@exits_on_error
def revoke(context: click.Context, name: str) -> None:
    """Revoke the token NAME, in every process within a second. Its name cannot be used again."""
    tokens.revoke_token(open_service(config_of(context)), name, current_author())
    click.echo(f"{name}: revoked")
