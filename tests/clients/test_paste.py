"""What we tell people to paste, word for word: with slots, with a command that fails, with the service away."""

from __future__ import annotations

import html
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs import ROOT
from tests.support.processes import free_port
from tests.support.servers import Server, running

CHART = """\
current_state: rollout
expect: 4
states:
  - name: rollout
    func: increment
    slots: 1
    current: [{key: count, value: 0}, {key: failed, value: 0}]
    target: [{name: end, when: {key: count, value: 4}}, {name: stop, when: {key: failed, value: 4}}]
  - name: end
  - name: stop
"""
SLOTS = re.compile(r"```sh\n(url=.*?apt-get.*?)```", re.S)


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("paste")
    database = shutil.copy(sqlite_template, folder / "state_service.db")
    with running(f"sqlite:///{database}", folder) as found:
        yield found


def page_snippet(server: Server, chart: str, title: str) -> str:
    page = server.ask("GET", f"/ui/charts/{chart}").body
    texts = [html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, flags=re.S)]
    marks = {"statectl": "statectl run", "curl": "use() {", "Chef": "execute '"}
    (found,) = [re.sub(r"<[^>]+>", "", text) for text in texts if marks[title] in text]
    return found


def ruby_as_shell(text: str) -> str:
    """Return what the Chef resource makes of its guard and its command: run the second if the first says yes."""
    base = re.search(r"'?(http://[^'\"#]+/charts/[^/]+)/#\{file\}\.curl\?(state=[a-z]+)&machine=", text)
    pipe = re.search(r"(curl -fsSL [^'\"]*)'", text)
    assert base is not None
    assert pipe is not None
    use = f'use() {{ {pipe[1]}"{base[1]}/$1.curl?{base[2]}&machine=$(hostname)$2" | curl -K -; }}\n'
    (command,) = re.findall(r'command "(.*)"\n', text)
    command = re.sub(r"#\{use\[(.*?)\]\}", lambda found: "use " + found[1].replace(",", ""), command)
    return f"{use}if use can; then {command}; fi\n"


def readme_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text().partition("## How a machine uses it")[2]
    return re.findall(r"```(?:sh|ruby)\n(.*?)```", text, flags=re.S)[:3]


SOURCES = ["page: statectl", "page: curl", "page: Chef", "README: statectl", "README: curl", "README: Chef", "slots.md"]


def pasted(server: Server, chart: str, source: str) -> str:
    """The text of `source` for this server and this chart, as shell."""
    where, _, title = source.partition(": ")
    if where == "page":
        text = page_snippet(server, chart, title)
    elif where == "README":
        text = readme_blocks()[["statectl", "curl", "Chef"].index(title)]
        text = text.replace("kernel-rollout", chart).replace("clients/statectl", "statectl")
    else:
        (text,) = SLOTS.findall((ROOT / "docs" / "slots.md").read_text())
        text = text.replace("rolling-reboot", chart).replace("state=reboot", "state=rollout")
    text = re.sub(r"http://(localhost|127\.0\.0\.1):\d+", f"http://127.0.0.1:{server.url.rpartition(':')[2]}", text)
    return ruby_as_shell(text) if title == "Chef" else text


@pytest.fixture
def chart(server: Server, request: pytest.FixtureRequest) -> str:
    name = f"p{abs(hash(request.node.nodeid))}"
    server.import_chart(name, CHART)
    return name


def paste(text: str, folder: Path, machine: str, status: int) -> int:
    """Run the text in sh, where the work ends with `status`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("do-the-work", "update-kernel", "apt-get"):
        write(programs / name, f"echo worked >>{folder}/work; echo 'no space left'; exit {status}")
    write(programs / "hostname", f"echo {machine}")
    shutil.copy(ROOT / "clients" / "statectl", programs / "statectl")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "STATECTL_CONF": "/dev/null"}
    done = subprocess.run(["sh", "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def works(folder: Path) -> int:
    found = folder / "work"
    return found.read_text().count("worked") if found.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_pasted_text_claims_and_reports_success_and_failure(
    server: Server, chart: str, tmp_path: Path, source: str
) -> None:
    text = pasted(server, chart, source)
    paste(text, tmp_path, "web-01", 7)
    assert server.status(chart)["values"] == {"count": 0, "failed": 1}
    assert paste(text, tmp_path, "web-01", 0) == 0
    assert server.status(chart)["values"] == {"count": 1, "failed": 0}
    # Done is done.
    paste(text, tmp_path, "web-01", 0)
    assert works(tmp_path) == 2
    # The one slot is another machine's.
    assert server.ask("PUT", f"/charts/{chart}/slot?state=rollout&machine=other").status == 200
    if source != "slots.md":
        paste(text, tmp_path, "web-02", 0)
        assert works(tmp_path) == 2
    assert [row["kind"] for row in server.history(chart)][:5] == ["import", "claim", "update", "claim", "update"]


# Begins to listen after three seconds, and passes every connection on.
FORWARD = """
import asyncio, sys

async def pump(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()

async def serve(reader, writer):
    behind, sink = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, sink), pump(behind, writer), return_exceptions=True)

async def main():
    await asyncio.sleep(3)
    await (await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))).serve_forever()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_pasted_text_survives_a_service_that_is_away_for_three_seconds(
    server: Server, chart: str, tmp_path: Path, source: str
) -> None:
    port, behind = free_port(), server.url.rpartition(":")[2]
    text = pasted(server, chart, source).replace(f":{behind}", f":{port}")

    with subprocess.Popen([sys.executable, "-c", FORWARD, str(port), behind]) as away:
        try:
            assert paste(text, tmp_path, "web-01", 0) == 0
        finally:
            away.kill()
    assert server.status(chart)["values"] == {"count": 1, "failed": 0}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_pasted_text_takes_no_redirect_for_a_yes(server: Server, chart: str, tmp_path: Path, source: str) -> None:
    behind = server.url.rpartition(":")[2]
    listener = socket.create_server(("127.0.0.1", 0))
    text = pasted(server, chart, source).replace(f":{behind}", f":{listener.getsockname()[1]}")

    def redirect() -> None:
        while True:
            client, _ = listener.accept()
            client.recv(65536)
            head = f"HTTP/1.1 302 Found\r\nLocation: {server.url}/healthz\r\nContent-Length: 0\r\n"
            client.sendall(f"{head}Connection: close\r\n\r\n".encode())
            client.close()

    threading.Thread(target=redirect, daemon=True).start()
    paste(text, tmp_path, "web-01", 0)
    assert works(tmp_path) == 0
