"""Every setting: its name, default and meaning. The service does not start with a bad value."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.core.chart import CHART_NAME, CHART_NAME_RULE
from app.core.errors import SettingError

PREFIX = "STATE_SERVICE_"
# Of the command line, for asking a server: no settings of the service.
SERVER, TOKEN_FILE = f"{PREFIX}SERVER", f"{PREFIX}TOKEN_FILE"
CLIENT_VARIABLES = frozenset({SERVER, TOKEN_FILE})
# The version of the service.
VERSION = "0.1.0"
HOME = Path(__file__).resolve().parent.parent
MAX_PORT = 65535
# A host name (with a leading dot: every name below it) or an IPv6 address in brackets.
_HOST = re.compile(r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
# An address on which gunicorn listens.
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_WEBHOOK_HOST = re.compile(
    r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?:/[0-9]{1,2})?|[0-9a-f:.]*:[0-9a-f:.]*(?:/[0-9]{1,3})?"
    # A service that apprise tells.
    r"|(?!https?:)[a-z][a-z0-9+.-]*://"
)
_BIND = re.compile(r"unix:.+|fd://[0-9]+|(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):(?P<port>[0-9]{1,5})")


def default_database_url() -> str:
    """Return the URL of the SQLite file in this checkout, or in the user's own folder if a package has installed it."""
    path = HOME / "instance" / "state_service.db"
    if HOME.match("stateservice/home"):
        home = os.path.expanduser("~")
        # A container's user may have no home: the name then stays as it is.
        share = Path("/nonexistent" if home == "~" else home) / ".local" / "share"
        path = Path(os.environ.get("XDG_DATA_HOME") or share) / "stateservice" / "state_service.db"
    # Quoted, because SQLAlchemy decodes the path: a folder's name may have a `%` or a `?`.
    return f"sqlite:///{quote(str(path))}"


def _text(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("must be true or false")
    return words[text.lower()]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return read


def _choice(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return text

    return read


def _chart_name(text: str) -> str:
    if not CHART_NAME.fullmatch(text):
        raise ValueError(f"must be a chart's name: {CHART_NAME_RULE}")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    # Host names are compared without case and without the dot that may end them.
    hosts = tuple(part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"must be host names without a port, comma-separated: {host!r} is not a host name")
    return hosts


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _webhook_hosts(text: str) -> tuple[str, ...]:
    entries = tuple(part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip())
    for entry in entries:
        if not _WEBHOOK_HOST.fullmatch(entry):
            raise ValueError(
                "must be host names, patterns such as *.example.org, addresses, networks or schemes such as slack://,"
                f" comma-separated, without a port: {entry!r} is not one"
            )
    return entries


def _bind(text: str) -> str:
    for part in text.split(","):
        found = _BIND.fullmatch(part.strip())
        if found is None or int(found["port"] or 0) > MAX_PORT:
            raise ValueError("must be HOST:PORT or unix:PATH, comma-separated")
    return text


class SecretError(ValueError):
    """A secret cannot be used. The message about it does not show it."""


def _secret(text: str) -> str:
    if len(text) < 32:
        raise SecretError(f"must have 32 characters or more, as `openssl rand -base64 32` prints: it has {len(text)}")
    return text


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError("must be a header's name, such as X-Certified-Machine")
    return text


def _setting(read: Callable[[str], Any], default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"read": read, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one process. Each is the environment variable STATE_SERVICE_<NAME>, in capitals."""

    database_url: str = _setting(_text, default_database_url(), "the database: sqlite:///FILE or postgresql://…")
    default_chart: str | None = _setting(
        _chart_name, None, "the chart behind /state; if not set, the only chart there is"
    )
    auth: str | None = _setting(
        _choice("open", "tokens"), None, "who may do what: open (every caller, everything) or tokens"
    )
    log_key: str | None = _setting(_secret, None, "a secret that makes the log's hashes HMACs; 32 characters or more")
    secret_key: str | None = _setting(
        _secret, None, "signs the sessions of people who sign in to the pages; 32 characters or more"
    )
    pool_size: int = _setting(_whole(1, 1000), 10, "database connections per worker")
    pooler: bool = _setting(_boolean, False, "true if a transaction-mode pooler (pgbouncer) is in front of PostgreSQL")
    sweep_seconds: int = _setting(_whole(1, 60), 1, "seconds between two checks for clock guards that are due")
    workers: int = _setting(_whole(1, 256), 2, "worker processes")
    threads: int = _setting(_whole(1, 5000), 16, "threads per worker for pages and administration")
    max_waiters: int = _setting(_whole(0, 100_000), 2000, "requests that may wait (wait=) at one time on one server")
    listen_url: str | None = _setting(
        _text, None, "PostgreSQL without the pooler, for LISTEN and migrations; if not set, DATABASE_URL"
    )
    bind: str = _setting(_bind, "127.0.0.1:5000", "where gunicorn listens: HOST:PORT or unix:PATH, comma-separated")
    trusted_hosts: tuple[str, ...] = _setting(
        _hosts, (), "the Host names that are answered, comma-separated; if not set, any, but on loopback its own"
    )
    proxy_hops: int = _setting(_whole(0, 5), 0, "how many proxies in front set X-Forwarded-For")
    machine_header: str | None = _setting(
        _header, None, "the header in which such a proxy names the machine of the client's certificate"
    )
    access_log: bool = _setting(_boolean, True, "one JSON line per request on the logger stateservice.access")
    webhook_hosts: tuple[str, ...] = _setting(
        _webhook_hosts,
        (),
        "where subscriptions may send: names, *.example.org, addresses, networks, slack://; if not set, nowhere",
    )
    metrics_charts: int = _setting(
        _whole(0, 100_000), 500, "charts with series in /metrics; stateservice_charts_left_out counts the rest"
    )
    logger: str | None = _setting(_text, None, "a YAML file for Python's logging.config.dictConfig")

    def given(self) -> dict[str, str]:
        """Return the settings that differ from their defaults, as texts for the environment."""
        values = {
            item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) != item.default
        }
        return {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in values.items()}


# Cached: every request asks.
@lru_cache
def loopback_hosts(bind: str) -> tuple[str, ...]:
    """Return the Host names that a service answers which listens on loopback addresses alone; empty if it does not.

    Otherwise a page in a browser on this machine could reach it under a name of the page's own site, whose address that
    site changes to a loopback one.
    """
    bound = [part.strip().rpartition(":")[0] for part in bind.split(",")]
    if not all(is_loopback(host.strip("[]")) for host in bound):
        return ()
    return (*_LOOPBACK_HOSTS, *(host.lower() for host in bound if host not in _LOOPBACK_HOSTS))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in a list of all settings: its variable, default and meaning."""

    variable: str
    default: Any
    meaning: str


def list_settings() -> list[Setting]:
    """Return every setting, in the order of Config."""
    return [Setting(_variable(item.name), item.default, item.metadata["meaning"]) for item in fields(Config)]


def find_unknown(environment: Mapping[str, str]) -> list[str]:
    """Return the variables with this service's prefix that are not settings: typing mistakes, most likely."""
    known = {setting.variable for setting in list_settings()}
    known |= CLIENT_VARIABLES
    return sorted(variable for variable in environment if variable.startswith(PREFIX) and variable not in known)


def read_config(environment: Mapping[str, str], **overrides: Any) -> Config:
    """Read every setting from `environment`; `overrides` that are not None win.

    Raises SettingError, which names the variable, for a value that cannot be used.
    """
    values = {item.name: _read(item, environment) for item in fields(Config)}
    values |= {name: value for name, value in overrides.items() if value is not None}
    return Config(**values)


def require_auth(config: Config) -> None:
    """Raise SettingError if STATE_SERVICE_AUTH is not set."""
    if config.auth is None:
        raise SettingError("STATE_SERVICE_AUTH must say tokens or open")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _read(item: Field[Any], environment: Mapping[str, str]) -> Any:
    variable = _variable(item.name)
    text = environment.get(variable)
    if text is None or text == "":
        return item.default
    try:
        return item.metadata["read"](text)
    except SecretError as error:
        raise SettingError(f"{variable} {error}") from None
    except ValueError as error:
        raise SettingError(f"{variable}={text!r} {error}") from None
