"""Writes dist/stateservice.pyz, the service and its libraries in one file that Python alone runs: `make dist`.

The libraries are those of this virtual environment, which pip checked against the hashes of requirements.txt. Their
compiled parts are left out, so that the file runs on any machine and any Python from 3.11 on: SQLAlchemy, MarkupSafe
and PyYAML work without them, and psycopg then asks the system's libpq.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import zipapp
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import backend

# Compiled parts, and what is there for people who compile.
LEFT_OUT = {".so", ".pyd", ".pyc", ".pyx", ".pxd", ".c", ".h"}
# Works only compiled; psycopg does without it. And what rich needs for more than tables: 10 MB.
WITHOUT = {"psycopg-binary", "pygments", "markdown-it-py", "mdurl"}
BOOTSTRAP = '''\
"""Unpacks the service once, because gunicorn and the pages need real files, and runs it."""

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DIGEST = "@DIGEST@"

if sys.version_info < (3, 11):
    sys.exit("stateservice: it needs Python 3.11 or newer")
try:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stateservice"
except RuntimeError:
    sys.exit("stateservice: this user has no home; XDG_CACHE_HOME names a folder to unpack into")
place = cache / DIGEST
if not place.exists():
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            with zipfile.ZipFile(sys.argv[0]) as archive:
                archive.extractall(made, [name for name in archive.namelist() if name.startswith("site/")])
            # Another process may have done the same meanwhile.
            try:
                os.rename(Path(made) / "site", place)
            except OSError:
                if not place.exists():
                    raise
    except OSError as error:
        sys.exit(f"stateservice: cannot unpack into {cache} ({error}); XDG_CACHE_HOME names another folder")
site = str(place)
sys.path.insert(0, site)
# Of the processes that serve.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")]))
from stateservice import main

main()
'''


def list_libraries() -> Iterator[Distribution]:
    """Yield each library that requirements.txt pins, but for those in WITHOUT."""
    pinned = re.findall(r"^([\w.-]+)==", (backend.ROOT / "requirements.txt").read_text(), flags=re.M)
    yield from (distribution(name) for name in pinned if name not in WITHOUT)


def list_files() -> Iterator[tuple[str, bytes]]:
    """Yield each file of the archive's folder `site`: its place, and its bytes."""
    for file in sorted((backend.ROOT / "release" / "stateservice").glob("*.py")):
        yield f"stateservice/{file.name}", file.read_bytes()
    for place, file in backend.list_home():
        yield f"stateservice/home/{place}", file.read_bytes()
    for library in list_libraries():
        for path in sorted(library.files or (), key=str):
            if path.suffix not in LEFT_OUT and not str(path).startswith((".", "/")):
                yield path.as_posix(), path.locate().read_bytes()


def build(target: Path) -> None:
    """Write the file."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        for place, content in list_files():
            path = Path(folder) / "site" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            digest.update(f"{place} {len(content)}\n".encode() + content)
        (Path(folder) / "__main__.py").write_text(BOOTSTRAP.replace("@DIGEST@", digest.hexdigest()[:32]))
        target.parent.mkdir(parents=True, exist_ok=True)
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3", compressed=True)
        target.chmod(0o755)


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else backend.ROOT / "dist") / "stateservice.pyz"
    build(where)
    print(f"{where}: {where.stat().st_size / 1e6:.1f} MB")
