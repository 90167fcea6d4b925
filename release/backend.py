"""Builds the wheel, as PEP 517 has it, with Python alone: `pip wheel --no-deps .` needs no network.

setuptools would take the repository's folders for packages of their own, and install `app` and `migrations` beside
everybody's. Here they go below `stateservice/home`. Two builds of the same files are the same, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What of the repository is in the wheel, below stateservice/home.
PARTS = ("app", "migrations", "charts", "wsgi.py", "gunicorn.conf.py", "alembic.ini")
# The files of release/share, and where a package manager's users look for them.
SHARE = {
    "stateservice.1": "share/man/man1/stateservice.1",
    "stateservice.bash": "share/bash-completion/completions/stateservice",
    "stateservice.zsh": "share/zsh/site-functions/_stateservice",
    "stateservice.fish": "share/fish/vendor_completions.d/stateservice.fish",
}
# ZIP files know no time before.
EPOCH = (1980, 1, 1, 0, 0, 0)
TAG = "py3-none-any"


def read_project() -> dict[str, Any]:
    """Return the table [project] of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def read_version() -> str:
    """Return the version of the service, which stands in app/config.py alone."""
    found = re.search(r'^VERSION = "([^"]+)"$', (ROOT / "app" / "config.py").read_text(), flags=re.M)
    assert found is not None
    return found[1]


def list_requirements(file: str = "requirements.in") -> list[str]:
    """Return what the service needs, without comments."""
    lines = ((ROOT / file).read_text()).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]


def list_home() -> Iterator[tuple[str, Path]]:
    """Yield each file of the service with its place below stateservice/home."""
    for part in PARTS:
        path = ROOT / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT).as_posix(), file


def list_files() -> Iterator[tuple[str, bytes]]:
    """Yield each file of the wheel but for its RECORD: its place, and its bytes."""
    info, data = f"stateservice-{read_version()}.dist-info", f"stateservice-{read_version()}.data/data"
    for file in sorted((ROOT / "release" / "stateservice").glob("*.py")):
        yield f"stateservice/{file.name}", file.read_bytes()
    for place, file in list_home():
        yield f"stateservice/home/{place}", file.read_bytes()
    for name, place in SHARE.items():
        yield f"{data}/{place}", (ROOT / "release" / "share" / name).read_bytes()
    yield f"{info}/METADATA", write_metadata().encode()
    yield f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: stateservice\nRoot-Is-Purelib: true\nTag: {TAG}\n".encode()
    yield f"{info}/entry_points.txt", b"[console_scripts]\nstateservice = stateservice:main\n"
    yield f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes()


def write_metadata() -> str:
    """Return the METADATA of the wheel."""
    project = read_project()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {read_version()}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {name}" for name in list_requirements()),
        *_list_extras(project),
        "Description-Content-Type: text/markdown",
        "",
        (ROOT / "README.md").read_text(),
    ]
    return "\n".join(lines)


def _list_extras(project: dict[str, Any]) -> Iterator[str]:
    for extra, names in project["optional-dependencies"].items():
        yield f"Provides-Extra: {extra}"
        yield from (f'Requires-Dist: {name}; extra == "{extra}"' for name in names)


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """Write the wheel into a folder, and return its name. pip calls this."""
    name = f"stateservice-{read_version()}-{TAG}.whl"
    record = []
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for place, content in list_files():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{place},sha256={digest},{len(content)}")
            _add(wheel, place, content)
        place = f"stateservice-{read_version()}.dist-info/RECORD"
        _add(wheel, place, "\n".join([*record, f"{place},,", ""]).encode())
    return name


def _add(archive: zipfile.ZipFile, place: str, content: bytes) -> None:
    info = zipfile.ZipInfo(place, EPOCH)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, content)


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Write the files from which the wheel is built into a folder, and return the archive's name. pip calls this."""
    top = f"stateservice-{read_version()}"
    with tarfile.open(Path(sdist_directory) / f"{top}.tar.gz", "w:gz") as archive:
        for part in (*PARTS, "release", "pyproject.toml", "requirements.in", "LICENSE", "README.md"):
            archive.add(ROOT / part, f"{top}/{part}", filter=_without_caches)
    return f"{top}.tar.gz"


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
