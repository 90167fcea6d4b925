"""`./state_service token`: who may do what."""

from __future__ import annotations

import click

from app.cli.shared import config_of, current_author, open_service, print_json, print_table, reporting
from app.service import tokens
from app.service.tokens import Role


@click.group("token", short_help="Tokens: create, list, revoke.")
def group() -> None:
    """Tokens: who may do what to which charts."""


@group.command("create", epilog='Example: ./state_service token create web-fleet --role machine --charts "web-*"')
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([str(role) for role in Role]), help="What it may do.")
@click.option("--charts", "pattern", default="*", show_default=True, metavar="PATTERN", help="To which charts.")
@click.pass_context
@reporting
def create(context: click.Context, name: str, role: str, pattern: str) -> None:
    """Make a token called NAME, and print its secret, which is kept nowhere.

    NAME is what the log calls whoever uses it. In PATTERN, * stands for any characters and ? for one.
    """
    service = open_service(config_of(context))
    secret = tokens.create_token(service, name, tokens.read_role(role), pattern, current_author())
    click.echo("Shown this once. Send it as: curl -H 'Authorization: Bearer TOKEN' ...", err=True)
    click.echo(secret)


@group.command("list", epilog="Example: ./state_service token list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@reporting
def list_(context: click.Context, as_json: bool) -> None:
    """Every token, revoked ones too; never a secret."""
    found = [row.as_json() for row in tokens.list_tokens(open_service(config_of(context)))]
    if as_json:
        print_json(found)
        return
    headings = ("name", "role", "pattern", "created_at", "created_by", "revoked_at")
    print_table([name.upper() for name in headings], [[row[name] for name in headings] for row in found])


@group.command("revoke", epilog="Example: ./state_service token revoke web-fleet")
@click.argument("name")
@click.pass_context
@reporting
def revoke(context: click.Context, name: str) -> None:
    """Make the token NAME good for nothing, in every process within a second. Its name is not used again."""
    tokens.revoke_token(open_service(config_of(context)), name)
    click.echo(f"{name}: revoked")
