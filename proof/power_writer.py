"""A process whose power is cut: it answers PUTs on an SQLite file, and notes each answer where `strace` sees it."""

from __future__ import annotations

import os
import sys
import threading

from sqlalchemy import event

from app.config import Config
from app.wiring import create_app, service_of
from proof.load import RING
from tests.support.apps import import_text

THREADS = 4
CHART = "power"


def write(url: str, answers: str, count: int, synchronous: str) -> None:
    """Send `count` PUTs from several threads at once; write a line to `answers` for each yes."""
    app = create_app(Config(database_url=url))
    if synchronous != "FULL":
        # The defect that is seeded here.
        event.listen(
            service_of(app).database.engine,
            "connect",
            lambda connection, record: connection.execute(f"PRAGMA synchronous={synchronous}"),
        )
    import_text(app, RING, CHART)
    file = os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    current = ["one"]

    def send(thread: int) -> None:
        client = app.test_client()
        for number in range(count // THREADS):
            path = f"/charts/{CHART}/state?state={current[0]}&machine=m{thread}-{number}"
            found = client.put(path, headers={"Accept": "application/json"}).get_json()
            current[0] = found["current_state"]
            if found["answer"] == "yes":
                os.write(file, f"{found['seq']} m{thread}-{number}\n".encode())

    threads = [threading.Thread(target=send, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Without a goodbye: SQLite would tidy up.
    os._exit(0)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
