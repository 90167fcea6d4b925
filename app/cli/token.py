"""`./state_service token`: create, list and revoke tokens."""

from __future__ import annotations

import click

from app.cli.shared import config_of, current_author, exits_on_error, open_service, print_json, print_table
from app.service import tokens
from app.service.tokens import Role


@click.group("token", short_help="Tokens: create, list, revoke.")
def group() -> None:
    """Tokens: who may do what to which charts."""


@group.command("create", epilog='Example: ./state_service token create web-fleet --role machine --charts "web-*"')
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([str(role) for role in Role]), help="What the token allows.")
@click.option("--charts", "pattern", default="*", show_default=True, metavar="PATTERN", help="The charts it is for.")
@click.pass_context
@exits_on_error
def create(context: click.Context, name: str, role: str, pattern: str) -> None:
    """Create a token called NAME, and print its secret, which is not stored.

    The log records NAME as the actor of every request with this token. In PATTERN, * stands for any characters and
    ? for one.
    """
    service = open_service(config_of(context))
    secret = tokens.create_token(service, name, tokens.read_role(role), pattern, current_author())
    click.echo("Shown only once. Send it as: curl -H 'Authorization: Bearer TOKEN' ...", err=True)
    click.echo(secret)


@group.command("list", epilog="Example: ./state_service token list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@exits_on_error
def list_(context: click.Context, as_json: bool) -> None:
    """List every token, also those that are revoked; never a secret."""
    found = [row.as_json() for row in tokens.list_tokens(open_service(config_of(context)))]
    if as_json:
        print_json(found)
        return
    headings = ("name", "role", "pattern", "created_at", "created_by", "revoked_at")
    print_table([name.upper() for name in headings], [[row[name] for name in headings] for row in found])


@group.command("revoke", epilog="Example: ./state_service token revoke web-fleet")
@click.argument("name")
@click.pass_context
@exits_on_error
def revoke(context: click.Context, name: str) -> None:
    """Revoke the token NAME, in every process within a second. Its name cannot be used again."""
    tokens.revoke_token(open_service(config_of(context)), name)
    click.echo(f"{name}: revoked")
