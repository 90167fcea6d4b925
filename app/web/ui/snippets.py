"""Texts for people to copy: how a machine takes part in a chart, with statectl, curl, Chef and Ansible.

Each claims a slot if the state has slots, reports a failure if the state counts failures, survives a service that is
away for a moment, and takes no redirect for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from flask import url_for

from app.core.chart import FAILED_KEY, Chart, State
from app.core.plan import find_main_path
from app.web.ui.base import uses_tokens

# Where the snippets expect the token: a file with the one line `Authorization: Bearer TOKEN` that only root can read.
TOKEN_FILE = "/etc/stateservice.header"
# The file for curl is fetched each time: it knows whether the state has slots by now.
FETCH = "curl -fsSL --max-redirs 0 --retry 5 --retry-connrefused"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text for people to copy, its title, and a note on how it is used."""

    title: str
    note: str
    text: str


def list_snippets(chart: Chart, current: str) -> list[Snippet]:
    """Snippets for the current state, or else for the first state of the main path on which machines report."""
    counted = [name for name in (current, *find_main_path(chart)) if chart.states[name].is_counting]
    if not counted:
        return []
    base = url_for("state.get_state", name=chart.name, _external=True).removesuffix("/state")
    state = chart.states[counted[0]]
    header = f" -H @{TOKEN_FILE}" if uses_tokens() else ""
    note = f" The token is read from {TOKEN_FILE}." if header else ""
    return [
        Snippet("statectl", "For every state of the chart; a failure is reported with its output.", _statectl(base)),
        Snippet("curl", f"For {state.name}, in sh.{note}", _curl(base, state, header)),
        Snippet("Chef", f"For {state.name}, in a recipe.{note}", _chef(base, state, header)),
        Snippet("Ansible", f"For {state.name}, in a playbook.", _ansible(base, state, is_guarded=bool(header))),
    ]


def _statectl(base: str) -> str:
    service, _, chart = base.rpartition("/charts/")
    return f"STATECTL_URL={service} statectl run {chart} -- do-the-work\n"


def _curl(base: str, state: State, header: str) -> str:
    failed = "use did '&key=failed'; " if state.has_attribute(FAILED_KEY) else ""
    query = f"state={quote(state.name)}&machine=$(hostname -f)$2"
    return (
        f'use() {{ {FETCH}{header} "{base}/$1.curl?{query}" | curl{header} -K -; }}\n'
        f"\n"
        f"if use can; then\n"
        f"    if do-the-work; then use did; else {failed}exit 1; fi\n"
        f"fi\n"
    )


def _chef(base: str, state: State, header: str) -> str:
    failed = "#{use['did', '&key=failed']}; " if state.has_attribute(FAILED_KEY) else ""
    query = f"state={quote(state.name)}&machine=#{{node['fqdn']}}#{{more}}"
    return (
        f"use = lambda do |file, more = ''|\n"
        f"  \"{FETCH}{header} '{base}/#{{file}}.curl?{query}' | curl{header} -K -\"\n"
        f"end\n"
        f"\n"
        f"execute '{state.name}' do\n"
        f"  command \"if do-the-work; then #{{use['did']}}; else {failed}exit 1; fi\"\n"
        f"  only_if use['can']\n"
        f"end\n"
    )


def _ansible(base: str, state: State, *, is_guarded: bool) -> str:
    query = f"state={quote(state.name)}&machine={{{{ inventory_hostname | urlencode }}}}"
    token = 'headers: {Authorization: "Bearer {{ stateservice_token }}"}\n' if is_guarded else ""

    def uri(method: str, resource: str, answer: str, indent: str = "  ") -> str:
        """A question or a report, sent again until it is answered."""
        lines = (
            f'ansible.builtin.uri:\n  url: "{base}/{resource}"\n  method: {method}\n'
            f"{'  ' + token if token else ''}  status_code: [200, 406]\n  follow_redirects: none\n"
            f"register: {answer}\nuntil: {answer}.status in [200, 406]\nretries: 5\ndelay: 2\n"
        )
        return "".join(indent + line for line in lines.splitlines(keepends=True))

    ask = ("GET", f"state?{query}") if state.slots is None else ("PUT", f"slot?{query}")
    rescue = (
        f"  rescue:\n    - name: I failed\n{uri('PUT', f'state?{query}&key=failed', 'told', '      ')}"
        f"    - ansible.builtin.fail: {{msg: the work failed}}\n"
    )
    return (
        f"- name: May I? ({state.name})\n{uri(*ask, 'may_i')}\n"
        f"- name: Do the work\n  when: may_i.status == 200\n  block:\n    - ansible.builtin.command: do-the-work\n"
        f"{rescue if state.has_attribute(FAILED_KEY) else ''}\n"
        f"- name: I did ({state.name})\n  when: may_i.status == 200\n{uri('PUT', f'state?{query}', 'told')}"
        f"  failed_when: told.status != 200\n"
    )
