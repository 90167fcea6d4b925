"""Twenty machines that speak FleetLock, each a shell script, reboot one after another through a real server."""

from __future__ import annotations

import subprocess
from pathlib import Path

from app.service.operate import ImportRequest, import_chart
from app.service.reading import get_status
from app.service.tokens import Role, create_token
from tests.service.support import ANN, opened_service, rows
from tests.support.servers import ROOT, running
from tests.support.slots import Ledger

MACHINE = Path(__file__).parent / "fleetlock" / "machine.sh"
NAME = "rolling-reboot"
MACHINES = [f"web-{number:02}" for number in range(1, 21)]


def begin(url: str) -> str:
    """Import the sample chart; return what a machine logs in with."""
    with opened_service(url) as service:
        import_chart(service, ImportRequest((ROOT / "charts" / f"{NAME}.yaml").read_text()), ANN)
        return f"zincati:{create_token(service, 'web-tier', Role.MACHINE, NAME, ANN)}"


def reboot_all(base: str, folder: Path, login: str) -> list[str]:
    """Run every machine until it is done; return what those said that failed."""
    command = ["sh", str(MACHINE)]
    started = [
        subprocess.Popen([*command, machine, NAME, base, str(folder), login], stderr=subprocess.PIPE, text=True)
        for machine in MACHINES
    ]
    said = [process.communicate(timeout=180)[1] for process in started]
    return [text for process, text in zip(started, said, strict=True) if process.returncode != 0]


def most_down(journal: str) -> int:
    """The most machines that were down at a time, as they themselves noted it."""
    down: set[str] = set()
    most = 0
    for line in journal.splitlines():
        word, machine = line.split()
        if word == "down":
            down.add(machine)
        else:
            down.remove(machine)
        most = max(most, len(down))
    return most


def test_twenty_machines_reboot_by_the_protocol(database_url: str, tmp_path: Path) -> None:
    login = begin(database_url)
    with running(database_url, tmp_path, auth="tokens") as server:
        assert reboot_all(f"{server.url}/", tmp_path, login) == []
    journal = (tmp_path / "journal").read_text()
    assert journal.splitlines()[:2] == [f"{word} {journal.split()[1]}" for word in ("down", "up")]
    assert journal.count("down ") == len(MACHINES)
    assert most_down(journal) <= 5
    with opened_service(database_url) as service:
        log = rows(service, NAME)
        assert get_status(service, NAME).current_state == "done"
    ledger = Ledger({1: (1, 5, 2)}).read(log)
    assert (1 < ledger.most <= 5, len(ledger.fences)) == (True, len(MACHINES))
    assert {row.actor for row in log if row.kind == "claim"} == {"web-tier"}
