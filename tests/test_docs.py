"""The pages agree with the code: the tests run their examples, compare their tables, follow their links and names."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from app import chart_file
from app.cli.root import main
from app.config import CLIENT_VARIABLES, HOME, Config, Setting, list_settings
from app.core.log import LogRow, canonical, chain_hash
from app.core.position import Kind, Reason
from app.db.engine import engine_options
from app.wiring import create_app
from release import pages
from tests.support.docs import (
    ROOT,
    Example,
    anchors,
    blocks,
    broken_links,
    command_lines,
    defined_names,
    endpoints,
    examples,
    links,
    list_modules,
    list_pages,
    normalize,
    pathed_names,
    paths,
    read_page,
    resolve,
    stray_addresses,
    table_rows,
)
from tests.support.processes import free_port, until
from tests.support.servers import environment, running

PAGES = list_pages()
RUN_PAGES = ("README.md", "docs/http.md", "docs/first-rollout.md")
HTTP = read_page("docs/http.md")
README = read_page("README.md")


# The examples, run


@dataclass(frozen=True, slots=True)
class Session:
    """A server for one test, on the charts of `make run`, and the environment in which a page's commands find it."""

    port: int
    database: Path
    log: Path
    environment: dict[str, str]

    def run(self, shown: list[Example]) -> list[str]:
        """Run the commands in one shell, one after another; return the output of each."""
        mark = "-- end of example --"
        lines = [f"{self.here(example.command)}\nprintf '\\n%s\\n' '{mark}'" for example in shown]
        done = subprocess.run(
            ["bash", "-c", "\n".join(["exec 2>&1", *lines])],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        return [output.replace(f":{self.port}", ":5000") for output in done.stdout.split(mark)[:-1]]

    def here(self, command: str) -> str:
        return re.sub(r"\b(localhost|127\.0\.0\.1):5000\b", rf"\1:{self.port}", command)

    def differences(self, shown: list[Example]) -> list[str]:
        """A text for each example whose output differs from the page."""
        found = self.run(shown)
        assert len(found) == len(shown), f"the shell ended at: {shown[len(found)].command}"
        return [
            f"$ {example.command}\nshown:\n{example.output}\nfound:\n{output.strip()}"
            for example, output in zip(shown, found, strict=True)
            if normalize(example.output) != normalize(output)
        ]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A session for a page whose examples begin with charts that nobody has touched."""
    with opened_session(tmp_path) as session:
        yield session


@pytest.fixture(scope="module")
def used_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session that several tests share."""
    with opened_session(tmp_path_factory.mktemp("session")) as session:
        yield session


@contextmanager
def opened_session(folder: Path) -> Iterator[Session]:
    database, port = folder / "state_service.db", free_port()
    charts = sorted(ROOT.glob("charts/*.yaml"), key=lambda path: (path.name != "states.yaml", path.name))
    options = [word for roster in ROOT.glob("charts/rosters/*.txt") for word in ("--roster", str(roster))]
    options += [word for chart in charts for word in ("--chart", str(chart))]
    command = [sys.executable, str(ROOT / "state_service"), *options, "--port", str(port)]
    with pytest.MonkeyPatch.context() as patch:
        # The pages' outputs name this user.
        patch.setenv("LOGNAME", "ann")
        with running(f"sqlite:///{database}", folder, command, port, workers="1") as server:
            own = environment(f"sqlite:///{database}", {})
            path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
            yield Session(port, database, server.log, own | {"PATH": path, "no_proxy": "*"})


def test_readme_examples_print_what_it_shows(session: Session) -> None:
    assert session.differences(examples(README)) == []
    pairs = re.findall(r"```sql\n(.*?)```\n\n```text\n(.*?)```", README, flags=re.DOTALL)
    assert pairs
    with closing(sqlite3.connect(session.database)) as connection:
        for query, shown in pairs:
            rows = [" | ".join(map(str, row)) for row in connection.execute(query)]
            assert rows == shown.splitlines()


def test_http_page_examples_print_what_it_shows(session: Session) -> None:
    assert session.differences(examples(HTTP)) == []


def test_first_rollout_prints_what_it_shows(session: Session) -> None:
    assert session.differences(examples(read_page("docs/first-rollout.md"))) == []


def test_site_has_every_page_of_docs() -> None:
    listed = re.findall(r"docs/([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_pages_of_the_site_link_to_files_of_the_site(tmp_path: Path) -> None:
    pages.lay_out(tmp_path)
    found = {page: links(page.read_text()) for page in tmp_path.rglob("*.md")}
    targets = [
        page.parent / name
        for page, all_ in found.items()
        for name in (link.partition("#")[0] for link in all_)
        if name and ":" not in name
    ]

    assert len(targets) > 100
    # A folder is not a page: a browser would look for it beside the page.
    assert [target for target in targets if not target.is_file()] == []
    assert "stories/README.md" in (tmp_path / "charts" / "README.md").read_text()


def test_wrong_example_is_found(used_session: Session) -> None:
    url = "http://localhost:5000/state?state=green_state"
    right = [Example(f"curl -s '{url}'", "green_state"), Example("x=7", ""), Example("echo $x", "7")]
    wrong = [
        Example(f"curl -sX PUT '{url}'", "red_state"),
        Example(f"curl -sf '{url}'; echo $?", "0"),
        Example(f"curl -sf '{url}'; echo $?", ""),
        Example("./no-such-command", ""),
    ]
    assert used_session.differences(right) == []
    assert len(used_session.differences(wrong)) == len(wrong)


def test_normalize_keeps_values_that_matter() -> None:
    assert normalize("count 1\nfailed 0\n") != normalize("count 2\nfailed 0\n")
    assert normalize("in 5 min 30 s, by the clock") == normalize("in 29 min, by the clock")
    assert normalize("rollout when count >= 5") != normalize("rollout when count >= 6")


@pytest.mark.parametrize("page", RUN_PAGES)
def test_page_has_examples(page: str) -> None:
    assert len(examples(read_page(page))) >= 10
    assert all(example.command.strip() for example in examples(read_page(page)))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_shell_blocks_can_be_parsed(page: Path) -> None:
    for block in blocks(read_page(page), "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + block


@pytest.mark.parametrize("page", [page for page in PAGES if str(page) not in RUN_PAGES], ids=str)
def test_only_pages_that_are_run_have_examples(page: Path) -> None:
    assert examples(read_page(page)) == []


def test_readme_shows_the_first_chart() -> None:
    shown = chart_file.parse(blocks(README, "yaml")[0], name="states")
    assert shown.chart == chart_file.parse((ROOT / "charts" / "states.yaml").read_bytes(), name="states").chart


# The tables, compared


def default_text(setting: Setting) -> str:
    if setting.default is None or setting.default == ():
        return "-"
    text = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    return f"`{text.replace(quote(str(HOME)), 'HOME')}`"


def test_settings_page_has_every_setting_and_no_other() -> None:
    rows = table_rows(read_page("docs/settings.md"), r"`STATE_SERVICE_\w+`")
    assert rows == [[f"`{item.variable}`", default_text(item), item.meaning] for item in list_settings()]


def test_settings_that_pages_name_exist() -> None:
    known = {setting.variable for setting in list_settings()} | {"STATE_SERVICE_NO_SKIPS", "STATE_SERVICE_"}
    known |= CLIENT_VARIABLES | {"STATE_SERVICE_COMPLETE"}
    named = {(str(page), name) for page in PAGES for name in re.findall(r"STATE_SERVICE_[A-Z_]*", read_page(page))}
    assert {(page, name) for page, name in named if name not in known} == set()


def test_http_page_has_every_reason_and_no_other() -> None:
    section = HTTP.split("\n### Reasons\n")[1].split("\n#")[0]
    assert {row[0] for row in table_rows(section, r"`\w+`")} == {f"`{reason}`" for reason in Reason}


def test_http_page_has_every_metric_and_no_other(used_session: Session) -> None:
    url = "http://localhost:5000"
    _, text = used_session.run(
        [Example(f"curl -sX PUT '{url}/state?state=x'", ""), Example(f"curl -s {url}/metrics", "")]
    )
    found = {re.sub(r"_total$", "", name) for name in re.findall(r"(?m)^# TYPE (\w+)", text)}
    assert {re.sub(r"_total$", "", name) for name in re.findall(r"`(stateservice_\w+)`", HTTP)} == found


def test_log_page_has_a_lines_fields(used_session: Session) -> None:
    used_session.run([Example("curl -sX PUT 'http://localhost:5000/state?state=x'", "")])
    shown = json.loads(blocks(read_page("docs/settings.md"), "json")[0])

    def find_line() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in used_session.log.read_text().splitlines() if line.startswith("{")]
        return next((line for line in lines if line.get("path") == "/state"), None)

    assert list(until(find_line, "the line is written") or ()) == list(shown)


def test_glossary_has_every_kind_of_log_row_and_no_other() -> None:
    section = read_page("docs/glossary.md").split("\n## Kinds of log rows\n")[1].split("\n## ")[0]
    cells = [row[0] for row in table_rows(section, r"`.+")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == {str(kind) for kind in Kind}


# How the page writes the variables of a path.
VARIABLES = {"name": "C", "machine": "M", "calendar": "CAL", "roster": "R", "version": "N", "subscription": "N"}


def routes() -> set[str]:
    app = create_app(Config(database_url=f"sqlite:///{HOME / 'no-such.db'}"))
    found = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        path = re.sub(r"<(?:[^:>]+:)?(\w+)>", lambda match: VARIABLES.get(match[1], match[1].upper()), rule.rule)
        found |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def test_http_page_describes_every_endpoint_and_no_other() -> None:
    described = list(endpoints(HTTP))
    assert sorted(described) == sorted(routes())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_exist(page: Path) -> None:
    for words in command_lines(read_page(page)):
        path, unknown = resolve(main, words)
        assert unknown == [], words
        assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0, words


def test_command_that_does_not_exist_is_found() -> None:
    assert resolve(main, ("chart", "list", "--json")) == (["chart", "list"], [])
    assert resolve(main, ("--database", "sqlite:///x.db", "chart", "list")) == (["chart", "list"], [])
    assert resolve(main, ("chart", "explode"))[1] == ["explode"]
    assert resolve(main, ("chart", "list", "--yaml"))[1] == ["--yaml"]


# Code


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_paths_that_pages_name_exist(page: Path) -> None:
    assert [path for path in paths(read_page(page)) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_functions_that_pages_name_exist(page: Path) -> None:
    assert [(path, name) for path, name in pathed_names(read_page(page)) if name not in defined_names(path)] == []


def test_architecture_page_names_the_functions_of_a_put() -> None:
    steps = read_page("docs/architecture.md").split("\n## One PUT, from URL to commit\n")[1].split("\n## ")[0]
    names = [name for _, name in pathed_names(steps)]
    assert len(names) == len(re.findall(r"(?m)^\d+\. ", steps))
    assert "step" in names


def test_architecture_page_describes_every_module_and_no_other() -> None:
    rows = table_rows(read_page("docs/architecture.md"), r"`app/.+")
    described = [path for row in rows for path in paths(row[0])]
    folders = tuple(f"{path}/" for path in described if (ROOT / path).is_dir())
    modules = {module for module in list_modules() if not module.startswith(folders)}
    files = {path for path in described if not (ROOT / path).is_dir() and not path.endswith("/__init__.py")}
    assert files == modules


def test_glossary_words_of_the_code_exist() -> None:
    section = read_page("docs/glossary.md").split("\n## Words in the code\n")[1]
    rows = table_rows(section, r"`\w+`")
    words = [(row[0].strip("`"), row[2].strip("` ")) for row in rows]
    assert len(words) >= 30
    assert [(name, module) for name, module in words if name not in defined_names(module)] == []


def test_missing_name_is_found() -> None:
    assert paths("`app/none.py` and `docs/http.md`, but not `tests` or `x/y.py`") == ["app/none.py", "docs/http.md"]
    assert pathed_names("1. `app/core/machine.py`: `step` decides") == [("app/core/machine.py", "step")]
    found = defined_names("app/web/state.py")
    assert {"StateDoor", "StateRoutes.__call__", "ROUTES", "put_state"} <= found
    assert not {"service", "put", "_answer"} & found


# Links and addresses


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, read_page(page)) == []


def test_index_page_links_to_every_page() -> None:
    index = ROOT / "docs"
    linked = {(index / link).resolve() for link in links(read_page("docs/README.md"))}
    assert {index / "README.md", *linked} >= set(index.glob("*.md"))


def test_broken_link_is_found() -> None:
    text = "# A b\n[a](#a-b) [b](docs/http.md#errors) [c](docs/none.md) [d](#none) [e](docs/http.md#none)"
    assert broken_links(Path("README.md"), text) == ["docs/none.md", "#none", "docs/http.md#none"]
    assert anchors("## The log's hash\n### `GET /state`, x") == {"the-logs-hash", "get-state-x"}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page_names_no_machine_of_its_authors(page: Path) -> None:
    assert stray_addresses(read_page(page)) == []


@pytest.mark.parametrize(
    "text",
    ["see /home/ann/x", "in /tmp/x.db", "at 10.1.2.3", "http://build.corp/x", "ann@somewhere.net", "http://web01/x"],
)
def test_stray_address_is_found(text: str) -> None:
    assert stray_addresses(text)


# The log's hash


def hash_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(blocks(HTTP, "json")[0])
    return rows


def log_row(fields: dict[str, Any]) -> LogRow:
    values = {name: value for name, value in fields.items() if name != "hash"}
    return LogRow(**{**values, "at": datetime.fromisoformat(fields["at"])})


def test_hash_example_is_what_the_service_computes() -> None:
    previous = ""
    for fields in hash_rows():
        previous = chain_hash(previous, log_row(fields))
        assert previous == fields["hash"]
    assert canonical(log_row(hash_rows()[1])) in [block.strip() for block in blocks(HTTP, "text")]


def test_hash_example_can_be_recomputed_from_the_page_alone() -> None:
    first, second = hash_rows()
    line = blocks(HTTP, "text")[0].strip()
    assert hashlib.sha256((first["hash"] + line).encode()).hexdigest() == second["hash"]


def test_hash_example_with_a_key_is_what_the_service_computes() -> None:
    key, previous = b"a secret", ""
    for fields in hash_rows():
        text = canonical(log_row(fields))
        wanted = hmac.new(key, (previous + text).encode(), "sha256").hexdigest()
        previous = chain_hash(previous, log_row(fields), key)
        assert previous == wanted
    assert f"`{previous}`" in HTTP


def test_pages_checker_finds_the_first_wrong_row() -> None:
    scope: dict[str, Any] = {"__name__": "page"}
    exec(blocks(HTTP, "python")[0], scope)
    assert scope["first_wrong"](hash_rows()) is None
    assert scope["first_wrong"]([{**row, "machine": "web-02"} for row in hash_rows()]) == 1
    assert scope["first_wrong"](hash_rows()[1:]) == 2


def test_pages_checker_goes_on_from_a_prune() -> None:
    first, second = hash_rows()
    marker = first | {"kind": "prune", "reason": json.dumps({"hash": first["hash"]})}
    scope: dict[str, Any] = {"__name__": "page"}
    exec(blocks(HTTP, "python")[0], scope)
    own_hash = chain_hash("", log_row(marker))
    assert scope["first_wrong"]([marker | {"hash": own_hash}, dict(second)]) is None
    assert scope["first_wrong"]([marker | {"hash": own_hash}, second | {"machine": "web-02"}]) == 2


def test_settings_page_has_the_time_limits_that_a_pooler_drops() -> None:
    (block,) = blocks(read_page("docs/settings.md"), "sql")
    found = {name: int(value) for name, value in re.findall(r"SET (\w+) = '(\d+)ms'", block)}
    options = engine_options("postgresql://db.example/x")["connect_args"]["options"]
    assert found == {name: int(value) for name, value in re.findall(r"-c (\w+)=(\d+)", options)}
