"""What happens to the database's file or server under load: the short form, for a user who is not root."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from proof.files import file_faults, run_files, server_faults
from proof.stand import Database, PostgresqlDatabase


def test_nothing_acknowledged_is_lost_whatever_happens_to_the_database(database: Database, tmp_path: Path) -> None:
    if isinstance(database, PostgresqlDatabase):
        kinds = {"down": server_faults(database)["down"]}
    else:
        kinds = file_faults(Path(str(make_url(database.url).database)))
    found = run_files(database, tmp_path, kinds, times=1)
    assert found.report.invalid == []
    assert found.report.violations == []
