"""A PostgreSQL primary and its synchronous standby, which change places whenever the primary is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from proof.stand import START_SECONDS, kill_at_once, postgresql_server, quiet_port
from tests.support.databases import migrate
from tests.support.hanging import find_postmaster
from tests.support.processes import until

USER = "postgres"
# How far an asynchronous standby is behind when it takes over.
LAG_SECONDS = 1.0


@dataclass(slots=True)
class Node:
    """One server: its data, its port, and the wheel's server, which knows the programs and who may run them."""

    data: Path
    wheel: Any
    port: int = field(default_factory=quiet_port)

    @property
    def url(self) -> str:
        """libpq's URL of its maintenance database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def ask(self, statement: str) -> Any:
        """Run one statement; return its first value, or None."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=3) as connection:
            found = connection.execute(statement.encode())
            return None if found.description is None else (found.fetchone() or [None])[0]

    def start(self) -> None:
        """Start it and return once it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data}"
        self.control("start", "-l", str(self.data / "log"), "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it, where it runs."""
        with suppress(subprocess.CalledProcessError):
            self.control("stop", "-m", mode)

    def kill(self) -> int:
        """Kill -9 the whole server; return when the last of it was sent the signal."""
        return kill_at_once(find_postmaster(self.data))

    def clear(self) -> None:
        """Leave an empty folder to fill with the data of another one."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, self.wheel.system_user or os.getuid())

    def control(self, act: str, *options: str) -> None:
        """Run pg_ctl and wait for it."""
        self.run("pg_ctl", "-w", "-D", str(self.data), *options, act)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the user that the server runs as."""
        command = [str(self.wheel.bin_path / program), *arguments]
        # A server that starts keeps what it was given for its output.
        null = subprocess.DEVNULL
        subprocess.run(command, user=self.wheel.system_user, stdout=null, stderr=null, timeout=60, check=True)


@dataclass(slots=True)
class Pair:
    """A primary, and a standby that every commit waits for, or none where `is_synchronous` is False."""

    primary: Node
    standby: Node
    is_synchronous: bool = True
    url: str = ""

    def faults(self) -> dict[str, Any]:
        """What the campaign can do to it: nothing, because an operator must rebuild what was killed."""
        return {}

    def fail_over(self) -> int:
        """Kill -9 the primary and promote its standby, which nobody stands by then; return when that was."""
        if not self.is_synchronous:
            self._fall_behind()
        killed = self.primary.kill()
        self.standby.control("promote")
        self.primary, self.standby = self.standby, self.primary
        self._require("")
        return killed

    def rebuild(self) -> None:
        """Make the server that was killed the synchronous standby of the other one."""
        self.standby.clear()
        source = f"host=127.0.0.1 port={self.primary.port} user={USER}"
        target = str(self.standby.data)
        self.standby.run("pg_basebackup", "--checkpoint=fast", "--write-recovery-conf", "-d", source, "-D", target)
        self.standby.start()
        self.require_standby()

    def _fall_behind(self) -> None:
        self.standby.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.standby.ask("SELECT pg_reload_conf()")
        time.sleep(LAG_SECONDS)

    def require_standby(self) -> None:
        """Have every commit wait for the standby, and return once it has all that was committed before."""
        state = "async"
        if self.is_synchronous:
            self._require("*")
            state = "sync"
        is_there = f"SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
        until(lambda: self.primary.ask(is_there) == 1, f"the standby is there, {state}", START_SECONDS)
        written = self.primary.ask("SELECT pg_current_wal_flush_lsn()")
        behind = f"SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{written}'"
        until(lambda: self.primary.ask(behind) == 1, "the standby has caught up", START_SECONDS)

    def _require(self, names: str) -> None:
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.ask("SELECT pg_reload_conf()")

    @property
    def hosts(self) -> str:
        """Both servers as a URL names them: whichever takes writes is meant."""
        ports = f"{self.primary.port},{self.standby.port}"
        return f"host=127.0.0.1,127.0.0.1&port={ports}&target_session_attrs=read-write&connect_timeout=3"


@contextmanager
def replicated_database(folder: Path, is_synchronous: bool = True) -> Iterator[Pair]:
    """A migrated database on a pair, at a URL that names both. `folder` must be one that its system user may enter."""
    with postgresql_server(folder) as wheel:
        first = Node(wheel.pgdata, wheel)
        first.stop("fast")
        first.start()
        pair = Pair(first, Node(wheel.pgdata.with_name("other"), wheel), is_synchronous)
        try:
            first.ask("CREATE DATABASE state")
            pair.url = f"postgresql://{USER}@/state?{pair.hosts}"
            migrate(pair.url)
            pair.rebuild()
            yield pair
        finally:
            for node in (pair.primary, pair.standby):
                node.stop()
