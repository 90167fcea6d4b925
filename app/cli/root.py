"""`./state_service`: the root command, which serves if no other command is given."""

from __future__ import annotations

import click

from app.cli import asks, calendar, chart, database, follow, lab, prove, remote, roster, subscription, token
from app.cli.given import rosters_option
from app.cli.serve import serve
from app.cli.shared import exits_on_error, load_config
from app.config import VERSION

EXAMPLES = """
\b
Examples:
  ./state_service --chart charts/states.yaml
  ./state_service --chart a.yaml --chart b.yaml --port 8080 --database postgresql://state@db/state
  ./state_service chart lint charts/states.yaml
"""


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--chart", "charts", multiple=True, metavar="FILE", help="A chart file to import; the first is the default chart."
)
@rosters_option("A roster to import before the charts; without NAME= it is called like the file.")
@click.option(
    "--take-file",
    is_flag=True,
    help="Import a --chart or --roster file also if it has the text of an earlier version: a rollback.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="The port to listen on.")
@click.option("--database", metavar="URL", help="sqlite:///FILE or postgresql://…; else STATE_SERVICE_DATABASE_URL.")
@click.option("--server", metavar="URL", help="Ask this server over HTTP; else STATE_SERVICE_SERVER, or a context.")
@click.option("--context", "server_context", metavar="NAME", help="A server in ~/.config/stateservice.toml.")
@click.option("--token-file", metavar="FILE", help="The token for the server, in a file that only you can read.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; else STATE_SERVICE_WORKERS.")
@click.version_option(VERSION, prog_name="state_service")
@click.option("--debug", is_flag=True, help="Log more, and restart when the code changes.")
@click.option("--logger", metavar="FILE", help="A YAML file for Python's logging.config.dictConfig.")
@click.pass_context
@exits_on_error
def main(
    context: click.Context,
    charts: tuple[str, ...],
    roster_files: tuple[str, ...],
    take_file: bool,
    host: str,
    port: int,
    database: str | None,
    server: str | None,
    server_context: str | None,
    token_file: str | None,
    workers: int | None,
    debug: bool,
    logger: str | None,
) -> None:
    """Sequence work over many machines: serve charts over HTTP, or administer them.

    Without a COMMAND: migrates the database, imports the rosters of --roster and the charts of --chart, and serves.
    """
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    context.obj = load_config(database_url=database, workers=workers, logger=logger, bind=bind)
    if database is not None and (server or server_context):
        raise click.UsageError("--server and --database are two places; give one")
    if context.invoked_subcommand is not None:
        remote.use(context, remote.find_server(server, server_context, token_file, database))
    elif server or server_context:
        raise click.UsageError("a server is asked by a command, such as `chart list`")
    else:
        serve(context.obj, charts, host, rosters=roster_files, debug=debug, take_file=take_file)


for command in (*lab.COMMANDS, prove.command, *follow.COMMANDS):
    chart.group.add_command(command)
main.add_command(chart.group)
main.add_command(calendar.group)
main.add_command(database.group)
main.add_command(roster.group)
main.add_command(token.group)
main.add_command(subscription.group)
remote.install(main, asks.ASKS)
