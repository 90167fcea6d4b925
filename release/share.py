"""Writes the man page and the shells' completion of `stateservice` into release/share: `make share`.

They are kept in the repository, because the wheel is built with Python alone, without click.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHARE = Path(__file__).resolve().parent / "share"
sys.path.insert(0, str(SHARE.parent.parent))

from app.cli.root import main  # noqa: E402  the path above comes first
from app.config import VERSION  # noqa: E402  the same

PROGRAM = "stateservice"


def list_texts() -> dict[str, str]:
    """Return each file of release/share by its name."""
    variable = f"_{PROGRAM.upper()}_COMPLETE"
    shells = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    completions = {f"{PROGRAM}.{name}": shell(main, {}, PROGRAM, variable) for name, shell in shells.items()}
    # click's own text, without the question which version of bash there is.
    sources = {name: shell.source_template % shell.source_vars() for name, shell in completions.items()}
    return {
        f"{PROGRAM}.1": "\n".join(_man_lines()) + "\n",
        **{name: text.strip() + "\n" for name, text in sources.items()},
    }


def _man_lines() -> Iterator[str]:
    yield f'.TH STATESERVICE 1 "" "StateService {VERSION}" "User commands"'
    yield ".SH NAME"
    yield "stateservice \\- sequence work over many machines"
    yield ".SH SYNOPSIS"
    yield ".B stateservice"
    yield "[OPTIONS] [COMMAND [ARGS]...]"
    yield ".SH DESCRIPTION"
    yield from _describe(main)
    yield ".SH OPTIONS"
    yield from _options(main)
    yield ".SH COMMANDS"
    yield from _commands(main, PROGRAM)
    yield ".SH EXIT STATUS"
    yield "0 yes, or done; 1 a refusal, or a difference; 2 wrong usage, or a bad file."
    yield ".SH FILES"
    yield ".TP"
    yield "~/.config/stateservice.toml"
    yield "Servers to ask, by name: see \\-\\-context."
    yield ".TP"
    yield "~/.local/share/stateservice/state_service.db"
    yield "The database, if neither \\-\\-database nor STATE_SERVICE_DATABASE_URL names one."


def _commands(group: click.Group, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command, words = group.commands[name], f"{path} {name}"
        if isinstance(command, click.Group):
            yield from _commands(command, words)
            continue
        pieces = [
            param.make_metavar(click.Context(command)) for param in command.params if isinstance(param, click.Argument)
        ]
        yield f".SS {_quote(' '.join([words, *pieces]))}"
        yield from _describe(command)
        yield from _options(command)


def _describe(command: click.Command) -> Iterator[str]:
    text = re.sub(r"\s*\n\s*\n\s*", "\n.PP\n", (command.help or "").strip())
    yield from (_quote(line.strip()) for line in text.replace("./state_service", PROGRAM).split("\n"))


def _options(command: click.Command) -> Iterator[str]:
    for param in command.params:
        record = param.get_help_record(click.Context(command)) if isinstance(param, click.Option) else None
        if record is not None:
            yield ".TP"
            yield f".B {_quote(record[0])}"
            yield _quote(record[1])


def _quote(text: str) -> str:
    if text == ".PP":
        return text
    quoted = text.replace("\\", "\\\\").replace("-", "\\-")
    return f"\\&{quoted}" if quoted.startswith((".", "'")) else quoted


if __name__ == "__main__":
    SHARE.mkdir(exist_ok=True)
    for name, text in list_texts().items():
        (SHARE / name).write_text(text)
