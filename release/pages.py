"""Lays out the pages of the site as they lie in the repository, so that each link of theirs works there: `make docs`.

mkdocs knows one folder, and the pages of docs/ link to others. A folder that is linked to gets a page that lists it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PARTS = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs",
    "charts",
    "clients",
    "deploy",
]
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)")


def lay_out(target: Path) -> None:
    """Write the pages, and the files that they link to, into `target`, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    for part in PARTS:
        source = ROOT / part
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file() and "__pycache__" not in file.parts:
                copy = target / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    for page in sorted(target.rglob("*.md")):
        page.write_text(LINK.sub(lambda found, page=page: _lead_to_list(found, page, target), page.read_text()))


def _lead_to_list(found: re.Match[str], page: Path, target: Path) -> str:
    """Return a link of a page; one to a folder leads to the page that lists it."""
    folder = (page.parent / found[1]).resolve()
    if not folder.is_dir():
        return found[0]
    _list_folder(folder, target)
    return f"]({PurePosixPath(found[1]) / 'README.md'}{found[2] or ''})"


def _list_folder(folder: Path, target: Path) -> None:
    """Write the page that lists a folder, and those of the folders in it, if they have none of their own."""
    page = folder / "README.md"
    if page.exists():
        return
    lines = [f"# {folder.relative_to(target.resolve()).as_posix()}", ""]
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            _list_folder(path, target)
        lines.append(f"- [{path.name}]({path.name}{'/README.md' if path.is_dir() else ''})")
    page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
