"""Backups under load, in the short form; and that a copy which is none is told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import make_url

from proof.backups import Plan, run_backups
from proof.stand import Database, sqlite_database


def test_backups_under_load_are_whole(database: Database, tmp_path: Path) -> None:
    found = run_backups(database, tmp_path, Plan(2))
    assert found.report.invalid == []
    assert found.report.violations == []
    assert found.least_meanwhile > 0


def test_a_copy_of_the_file_alone_is_told_from_a_backup(tmp_path: Path) -> None:
    with sqlite_database(tmp_path) as database:
        found = run_backups(database, tmp_path, Plan(1, take=copy_file))
    assert found.report.violations != []


def copy_file(database: Database, file: Path) -> None:
    """What the documentation warns of: the write-ahead log, and with it the latest commits, stays behind."""
    shutil.copyfile(str(make_url(database.url).database), file)
