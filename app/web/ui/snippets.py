"""What to paste where the work is done: curl, Chef and Ansible, for one state of one chart."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from flask import url_for

from app.core.chart import Chart, Func
from app.diagram.plan import find_main_path
from app.web.ui.base import uses_tokens

# Where the snippets expect the token: a file with the one line `Authorization: Bearer TOKEN`, readable by root alone.
TOKEN_FILE = "/etc/stateservice.header"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text to copy."""

    title: str
    note: str
    text: str


def list_snippets(chart: Chart, current: str) -> list[Snippet]:
    """Snippets for the current state, or where nobody reports on that, for the first one on which somebody does."""
    counted = [
        name
        for name in (current, *find_main_path(chart))
        if chart.states[name].func in (Func.INCREMENT, Func.DECREMENT)
    ]
    if not counted:
        return []
    base = url_for("state.get_state", name=chart.name, _external=True).removesuffix("/state")
    state = counted[0]
    header = f" -H @{TOKEN_FILE}" if uses_tokens() else ""
    note = f" The token is read from {TOKEN_FILE}." if header else ""
    return [
        Snippet("curl", f"For {state}; exit 0 is yes, 22 is no.{note}", _curl(base, state, header)),
        Snippet("Chef", f"For {state}, in a recipe.{note}", _chef(base, state, header)),
        Snippet("Ansible", f"For {state}, in a playbook.", _ansible(base, state, is_guarded=bool(header))),
    ]


def _curl(base: str, state: str, header: str) -> str:
    query = f"state={quote(state)}&machine=$(hostname -f)"
    return (
        f'curl -fsS{header} -o can.curl "{base}/can.curl?{query}"\n'
        f'curl -fsS{header} -o did.curl "{base}/did.curl?{query}"\n'
        f"\n"
        f"curl{header} -K can.curl && do-the-work && curl{header} -K did.curl\n"
    )


def _chef(base: str, state: str, header: str) -> str:
    return (
        f"url = \"{base}/state?state={quote(state)}&machine=#{{node['fqdn']}}\"\n"
        f"\n"
        f"execute '{state}' do\n"
        f"  command \"do-the-work && curl -fsS{header} --retry 5 -X PUT '#{{url}}'\"\n"
        f"  only_if \"curl -fsS{header} '#{{url}}'\"\n"
        f"end\n"
    )


def _ansible(base: str, state: str, *, is_guarded: bool) -> str:
    url = f'    url: "{base}/state?state={quote(state)}&machine={{{{ inventory_hostname | urlencode }}}}"\n'
    token = '    headers: {Authorization: "Bearer {{ stateservice_token }}"}\n' if is_guarded else ""
    return (
        f"- name: May I? ({state})\n"
        f"  ansible.builtin.uri:\n{url}{token}"
        f"    status_code: [200, 406]\n"
        f"  register: may_i\n"
        f"\n"
        f"- name: Do the work\n"
        f"  ansible.builtin.command: do-the-work\n"
        f"  when: may_i.status == 200\n"
        f"\n"
        f"- name: I did ({state})\n"
        f"  ansible.builtin.uri:\n{url}{token}"
        f"    method: PUT\n"
        f"  when: may_i.status == 200\n"
    )
