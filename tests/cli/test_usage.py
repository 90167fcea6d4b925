"""Help with an example for every command, settings, and exit codes for wrong usage."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from app.cli.root import main
from tests.cli.conftest import Run

BAD_SETTINGS = [
    ("STATE_SERVICE_WORKERS", "many"),
    ("STATE_SERVICE_THREADS", "0"),
    ("STATE_SERVICE_POOL_SIZE", "-1"),
    ("STATE_SERVICE_SWEEP_SECONDS", "1.5"),
    ("STATE_SERVICE_AUTH", "maybe"),
    ("STATE_SERVICE_POOLER", "perhaps"),
    ("STATE_SERVICE_PROXY_HOPS", "6"),
    ("STATE_SERVICE_MAX_WAITERS", "²"),
    ("STATE_SERVICE_DEFAULT_CHART", "no/chart"),
    ("STATE_SERVICE_DEFAULT_CHART", ".."),
    ("STATE_SERVICE_TRUSTED_HOSTS", "state.example,two words"),
    ("STATE_SERVICE_BIND", "localhost"),
]


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


ALL = list(commands(main))


@pytest.mark.parametrize("path", ALL, ids=[" ".join(path) or "(none)" for path in ALL])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_says_what_it_does(bare: Run, path: tuple[str, ...], option: str) -> None:
    done = bare(*path, option)
    assert done.code == 0
    assert done.out.startswith("Usage: ")
    # A group lists its commands; every other command shows an example.
    if path not in (("chart",), ("db",), ("token",)):
        assert f"./state_service {' '.join(path)}".rstrip() in done.out.replace("\n", " ").replace("  ", " ")
        assert "Example" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("chart", "nonsense"),
        ("db", "nonsense"),
        ("--nonsense",),
        ("chart", "show"),
        ("chart", "show", "a", "b"),
        ("chart", "import"),
        ("--port", "0"),
        ("--port", "65536"),
        ("--port", "x"),
        ("--workers", "0"),
    ],
    ids=" ".join,
)
def test_usage_error_exits_2(bare: Run, arguments: tuple[str, ...]) -> None:
    done = bare(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: ")


@pytest.mark.parametrize(("variable", "value"), BAD_SETTINGS)
@pytest.mark.parametrize("arguments", [("chart", "list"), ("db", "check"), ()], ids=["list", "check", "serve"])
def test_bad_setting_exits_2_with_its_name(bare: Run, variable: str, value: str, arguments: tuple[str, ...]) -> None:
    done = bare(*arguments, **{variable: value})
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"state_service: {variable}={value!r} must be ")
    assert len(done.err.splitlines()) == 1


def test_database_is_the_one_of_the_environment(bare: Run, sqlite_url: str) -> None:
    assert bare("db", "check", STATE_SERVICE_DATABASE_URL=sqlite_url).code == 0


def test_option_goes_before_the_environment(bare: Run, sqlite_url: str) -> None:
    assert bare("--database", sqlite_url, "db", "check", STATE_SERVICE_DATABASE_URL="nonsense").code == 0


@pytest.mark.parametrize("variable", ["STATE_SERVICE_LOG_KEY", "STATE_SERVICE_SECRET_KEY"])
def test_short_secret_exits_2_and_is_not_printed(bare: Run, variable: str) -> None:
    secret = "only-thirty-one-characters-long"
    done = bare("chart", "list", **{variable: secret})
    assert (done.code, done.out) == (2, "")
    assert f"{variable} must have 32 characters or more" in done.err
    assert secret not in done.err
