"""What it takes to add a func, a kind of guard or a column of the log, tried on a copy of the code.

Each test applies the recipe of CONTRIBUTING.md to a copy of `app/` and runs a program on the copy. The recipe names the
files to change; the test changes exactly those of them that are in `app/`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.docs import ROOT, blocks, read_page

GOLDEN = ROOT / "tests/golden/log-rows.json"
HTTP = read_page("docs/http.md")
# By path, the texts to replace and what to replace them with.
Edits = Mapping[str, Sequence[tuple[str, str]]]

MULTIPLY_MEMBER = """\
    TIME = ("time", None)
    MULTIPLY = (
        "multiply",
        Counting(
            lambda value: value * 2,
            lambda value: value // 2,
            Op.GE,
            lambda value, threshold: (-(-threshold // max(value, 1)) - 1).bit_length(),
        ),
    )
"""
MULTIPLY: Edits = {
    "app/core/chart.py": [('    TIME = ("time", None)\n', MULTIPLY_MEMBER)],
    "app/models.py": [("func IN ('increment', ", "func IN ('multiply', 'increment', ")],
}

GUARD_UNION = "Guard = CountGuard | ClockGuard | ElapsedGuard"
WEEKDAY_CLASS = f'''\
@dataclass(frozen=True, slots=True)
class WeekdayGuard(TimedGuard):
    """Holds from the first moment (UTC) of the visit that is on a day such as `monday`."""

    written: str
    key: str = field(default="weekday", init=False)

    def due_at(self, position: Situation) -> datetime:
        days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
        ahead = timedelta((days.index(self.written) - position.entered_at.weekday()) % 7)
        midnight = position.entered_at.replace(hour=0, minute=0, second=0, microsecond=0) + ahead
        return max(midnight, position.entered_at)

    @property
    def text(self) -> str:
        return f"on {{self.written}}"


{GUARD_UNION} | WeekdayGuard
'''
WEEKDAY_IMPORT = ("    ElapsedGuard,\n", "    ElapsedGuard,\n    WeekdayGuard,\n")
WEEKDAY_READER = '    "weekday": lambda text: WeekdayGuard(text),\n'
WEEKDAY_LOADED = '    if row.key == "weekday":\n        return WeekdayGuard(row.value)\n'
WEEKDAY_CHECK = """\
        " OR (key = 'weekday' AND instant IS NULL AND threshold IS NULL AND age IS NULL)"
        " OR (key = 'clock' AND"""
WEEKDAY: Edits = {
    "app/core/chart.py": [(f"{GUARD_UNION}\n", WEEKDAY_CLASS)],
    "app/chart_file/guards.py": [WEEKDAY_IMPORT, ('    "elapsed": lambda', f'{WEEKDAY_READER}    "elapsed": lambda')],
    "app/store/definitions.py": [
        WEEKDAY_IMPORT,
        ("    return ElapsedGuard(", f"{WEEKDAY_LOADED}    return ElapsedGuard("),
    ],
    "app/models.py": [("""        " OR (key = 'clock' AND""", WEEKDAY_CHECK)],
}

SITE: Edits = {
    "app/core/log.py": [
        ("    note: str | None = None\n\n", "    note: str | None = None\n    site: str | None = None\n\n")
    ],
    "app/models.py": [
        (
            'as it came later.\n    Column("note", Text),\n',
            'as it came later.\n    Column("note", Text),\n    Column("site", Text),\n',
        )
    ],
    "app/store/record.py": [("        note=entry.note,\n", '        note=entry.note,\n        site="north",\n')],
}

# Whatever the code does with a chart: read it, write it, describe it, draw it, keep it in tables.
USE = """
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from jsonschema import Draft202012Validator
from sqlalchemy import create_engine
import yaml
from app import chart_file, diagram
from app.core import machine
from app.core.position import Tick, Update
from app.models import metadata
from app.service.condition import find_timing
from app.service.status import say_what_it_waits_for
from app.store.definitions import add_version, load_chart

SATURDAY = datetime(2026, 1, 31, 12, tzinfo=UTC)


def use(text):
    chart = chart_file.parse(text, name="web").chart
    Draft202012Validator(chart_file.json_schema()).validate(yaml.safe_load(text))
    start = machine.start(chart, 1, 1, SATURDAY)
    written = chart_file.dump(chart, state="a", values=start.position.values)
    assert chart_file.parse(written).chart == chart, written
    with create_engine("sqlite://").begin() as connection:
        metadata.create_all(connection)
        add_version(connection, 1, 1, chart, text=text, now=SATURDAY, actor=None)
        assert load_chart(connection, 1, "web", 1) == chart
    find_timing(chart, start.position, SATURDAY)
    print(re.search('-> "state b" .label="(.*?)"', diagram.draw(chart, form=diagram.Form.DOT))[1])
    row = SimpleNamespace(paused_at=None)
    print(say_what_it_waits_for(chart.states["a"], row, start.position, SATURDAY))
    return chart, start
"""

USE_MULTIPLY = """
text = '''
current_state: a
expect: 3
states:
- {name: a, func: multiply, current: {key: count, value: 1}, target: {name: b, when: {key: count, value: 8}}}
- {name: b}
'''
chart, step = use(text)
for machine_id in ("m1", "m2", "m3"):
    step = machine.step(chart, step.position, Update(state="a", machine=machine_id), SATURDAY)
    print(step.reason, step.key, step.value)
try:
    chart_file.parse(text.replace("value: 8", "value: 9"), name="web")
except Exception as error:
    print(error)
"""

USE_WEEKDAY = """
chart, step = use('''
current_state: a
states:
- {name: a, func: time, target: {name: b, when: {key: weekday, value: monday}}}
- {name: b}
''')
print(step.due_at)
for hours in (35, 36):
    step = machine.step(chart, step.position, Tick(), SATURDAY + timedelta(hours=hours))
    print(step.position.state, *[(entry.kind.value, entry.reason) for entry in step.entries])
"""

USE_SITE = """
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from app.core.log import Author, COLUMNS, LogRow, canonical, chain_hash, read_marker
from app.core.position import Entry, Kind
from app.models import transition_log
from app.store.record import make_log_row


def log_row(fields):
    values = {name: value for name, value in fields.items() if name != "hash"}
    return LogRow(**{**values, "at": datetime.fromisoformat(fields["at"])})


logs, shown = json.load(sys.stdin)
changed = 0
for log in logs:
    previous, key = "", log["log_key"] and log["log_key"].encode()
    for fields in log["rows"]:
        row = log_row(fields)
        assert chain_hash(previous, row, key) == fields["hash"]
        changed += chain_hash(previous, replace(row, site="north"), key) != fields["hash"]
        previous = read_marker(row).hash if row.kind == "prune" else fields["hash"]
print(changed)
first, second = shown
print(chain_hash(first["hash"], log_row(second)))
print(chain_hash(first["hash"], log_row(second | {"site": "north"})))
print(canonical(log_row(second | {"site": "north"})))
entry = Entry(kind=Kind.UPDATE, version=1, run=1, visit=1, from_state="a", to_state="a")
print(make_log_row("web", 2, entry, datetime.now(UTC), Author()).as_json()["site"])
print(sorted(set(COLUMNS) ^ {column.name for column in transition_log.columns}))
"""


def run_on_copy(folder: Path, edits: Edits, program: str, given: str = "") -> list[str]:
    """Return the lines that `program` prints on a copy of `app/` with `edits` in it; `given` is its standard input."""
    # With what Python has compiled already: it compiles again what is edited.
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("static"))
    for path, changes in edits.items():
        text = (folder / path).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{path}: {old}"
            text = text.replace(old, new)
        (folder / path).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def recipe_files(title: str) -> list[str]:
    """Return the files that a recipe of CONTRIBUTING.md lists, in order."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().split(f"**{title}** ")[1].split("\n\n**")[0]
    return re.findall(r"^- `([\w/.]+)`", recipe, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "edits", "most"),
    [("A func.", MULTIPLY, 4), ("A guard key.", WEEKDAY, 6), ("A column of the log.", SITE, 6)],
    ids=["func", "guard", "column"],
)
def test_recipe_names_exactly_the_files_that_change(title: str, edits: Edits, most: int) -> None:
    files = recipe_files(title)
    assert [path for path in files if path.startswith("app/")] == list(edits)
    assert len(files) <= most


def test_func_works_everywhere_after_its_recipe(tmp_path: Path) -> None:
    assert run_on_copy(tmp_path, MULTIPLY, USE + USE_MULTIPLY) == [
        "count ≥ 8",
        "b when count >= 8 (now 1, 3 more)",
        "updated count 2",
        "updated count 4",
        "transitioned count 8",
        "5:106: the threshold '9' is above expect: it needs 4 machines, but 3 take part",
    ]


def test_guard_key_works_everywhere_after_its_recipe(tmp_path: Path) -> None:
    assert run_on_copy(tmp_path, WEEKDAY, USE + USE_WEEKDAY) == [
        "on monday",
        "b in 1 d 12 h, by the clock",
        "2026-02-02 00:00:00+00:00",
        "a",
        "b ('timeout', 'weekday monday')",
    ]


def test_new_log_column_is_hashed_only_if_it_is_not_null(tmp_path: Path) -> None:
    logs = json.loads(GOLDEN.read_text())
    shown = json.loads(blocks(HTTP, "json")[0])
    given = json.dumps([logs, shown])
    changed, null, non_null, text, written, others = run_on_copy(tmp_path, SITE, USE_SITE, given)
    assert int(changed) == sum(len(log["rows"]) for log in logs)
    assert null == shown[1]["hash"]
    assert f"`{non_null}`" in HTTP
    assert text in [block.strip() for block in blocks(HTTP, "text")]
    assert written == "north"
    assert others == "['hash', 'id']"
