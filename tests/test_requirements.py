"""The lock files pin what the .in files ask for, each with its hashes, and name no place to download from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ["requirements", "requirements-dev", "requirements-e2e", "requirements-docs"]


def asked_for(text: str) -> set[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {normalised(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines if line and not line.startswith("-")}


def pinned(text: str) -> dict[str, str]:
    """Return each pinned name with its entry: the version and the hashes."""
    entries = re.split(r"(?m)^(?=\S)", text)
    names = (re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==", entry) for entry in entries)
    return {normalised(name[1]): entry for name, entry in zip(names, entries, strict=True) if name}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_pins_every_name_that_is_asked_for(lock: str) -> None:
    wanted = asked_for((ROOT / f"{lock}.in").read_text())
    assert wanted
    assert wanted - pinned((ROOT / f"{lock}.txt").read_text()).keys() == set(), "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_has_hashes_for_every_pin(lock: str) -> None:
    entries = pinned((ROOT / f"{lock}.txt").read_text())
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_names_no_download_address(lock: str) -> None:
    text = (ROOT / f"{lock}.txt").read_text()
    assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links|file:", text) == []


def test_shared_names_have_one_version_in_all_lock_files() -> None:
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, entry in pinned((ROOT / f"{lock}.txt").read_text()).items():
            versions.setdefault(name, set()).add(entry.split()[0])
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
