"""`./state_service`: the root command, which serves if no other command is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from app.cli import asks, calendar, chart, database, demo, follow, lab, remote, roster, subscription, token
from app.cli.given import rosters_option
from app.cli.serve import serve
from app.cli.shared import PROGRAM, exits_on_error, load_config, open_standard_streams
from app.config import VERSION, Config

EXAMPLES = """
\b
Examples:
  ./state_service --chart charts/states.yaml
  ./state_service --chart a.yaml --chart b.yaml --port 8080 --database postgresql://state@db/state
  ./state_service chart lint charts/states.yaml
"""


# What `./state_service` and `./state_service serve` take.
SERVING = (
    click.option(
        "--chart",
        "charts",
        multiple=True,
        metavar="FILE",
        help="A chart file to import; the first is the default chart.",
    ),
    rosters_option("A roster to import before the charts; without NAME= it is called like the file."),
    click.option(
        "--take-file",
        is_flag=True,
        help="Import a --chart or --roster file also if it has the text of an earlier version: a rollback.",
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.option(
        "--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="The port to listen on."
    ),
    click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; else STATE_SERVICE_WORKERS."),
    click.option("--debug", is_flag=True, help="Log more, and restart when the code changes."),
    click.option("--logger", metavar="FILE", help="A YAML file for Python's logging.config.dictConfig."),
)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of serving."""
    for option in reversed(SERVING):
        command = option(command)
    return command


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@serving_options
@click.option("--database", metavar="URL", help="sqlite:///FILE or postgresql://…; else STATE_SERVICE_DATABASE_URL.")
@click.option("--server", metavar="URL", help="Ask this server over HTTP; else STATE_SERVICE_SERVER, or a context.")
@click.option("--context", "server_context", metavar="NAME", help="A server in ~/.config/stateservice.toml.")
@click.option("--token-file", metavar="FILE", help="The token for the server, in a file that only you can read.")
@click.version_option(VERSION)
@click.pass_context
@exits_on_error
def main(
    context: click.Context,
    /,
    *,
    database: str | None,
    server: str | None,
    server_context: str | None,
    token_file: str | None,
    **given: Any,
) -> None:
    """Sequence work over many machines: serve charts over HTTP, or administer them.

    Without a COMMAND it does what `serve` does.
    """
    open_standard_streams()
    context.obj = _read_settings(database, given)
    if database is not None and (server or server_context):
        raise click.UsageError("--server and --database are two places; give one")
    if context.invoked_subcommand is not None:
        remote.use(context, remote.find_server(server, server_context, token_file, database))
    elif server or server_context:
        raise click.UsageError("a server is asked by a command, such as `chart list`")
    else:
        _serve(context.obj, given)


@main.command("serve", epilog="Example: ./state_service serve --chart charts/states.yaml --port 8080")
@serving_options
@click.pass_context
@exits_on_error
def serve_(context: click.Context, /, **given: Any) -> None:
    """Migrate the database, import the rosters of --roster and the charts of --chart, and serve."""
    _serve(_read_settings(context.find_root().params["database"], given), given)


def _read_settings(database: str | None, given: Mapping[str, Any]) -> Config:
    host = given["host"]
    bind = f"[{host}]:{given['port']}" if ":" in host else f"{host}:{given['port']}"
    return load_config(database_url=database, workers=given["workers"], logger=given["logger"], bind=bind)


def _serve(config: Config, given: Mapping[str, Any]) -> None:
    rosters, debug, take_file = given["roster_files"], given["debug"], given["take_file"]
    serve(config, given["charts"], given["host"], rosters=rosters, debug=debug, take_file=take_file)


def installed() -> None:
    """Run the commands as the program `stateservice`, which a package has installed."""
    _rename(main)
    main(prog_name=PROGRAM)


def _rename(command: click.Command) -> None:
    command.help, command.epilog = (
        None if text is None else text.replace("./state_service", PROGRAM) for text in (command.help, command.epilog)
    )
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _rename(below)


for command in (*lab.COMMANDS, *follow.COMMANDS):
    chart.group.add_command(command)
main.add_command(chart.group)
main.add_command(calendar.group)
main.add_command(database.group)
main.add_command(roster.group)
main.add_command(token.group)
main.add_command(subscription.group)
main.add_command(demo.demo)
remote.install(main, asks.ASKS)
