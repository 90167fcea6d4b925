"""What an operator does on a chart's page; each form asks for its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, jsonify, request, url_for
from markupsafe import Markup

from app.core.chart import Chart, Func
from app.core.errors import BadRequestError
from app.core.log import HistoryFilter
from app.core.plan import find_main_path
from app.diagram import draw
from app.diagram.plots import draw_growth, draw_stay
from app.service import operate
from app.service.pages import (
    PAGE,
    PAGE_STATES,
    Detail,
    HistoryQuery,
    MachineQuery,
    Stay,
    find_seq,
    get_detail,
    list_kinds,
)
from app.service.reading import get_version
from app.service.tokens import Role
from app.web.auth import check
from app.web.request import MACHINE_LENGTH, NAME_LENGTH, current_author, current_holder, current_service, wait_for_rows
from app.web.ui.base import (
    blueprint,
    find_instant,
    find_query,
    find_whole,
    get_field,
    get_reason,
    go_to,
    render,
    uses_tokens,
)
from app.web.ui.imports import compare

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


# The fields of the two forms on the page: each keeps what the other one asked for.
MACHINE_FIELDS = ("is", "machine", "page")
HISTORY_FIELDS = ("kind", "by", "since", "until", "before")
# Below the minute after which many proxies give up on a silent server.
WAIT_SECONDS = 25
# What an act did, said on the page that follows it.
DONE = {
    "pause": "Paused.",
    "resume": "Resumed.",
    "reset": "Reset: a new run has begun.",
    "goto": "Moved.",
    "evict": "The slot is free again.",
    "created": "Imported: a new chart.",
    "upgraded": "Imported: a new version runs.",
    "unchanged": "Nothing to do: this is the version that runs.",
}


@blueprint.get("/ui/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """One chart: where it stands, who reported, what happened, and what to do about it."""
    machines, history = _read_machines(), _read_history()
    detail = get_detail(current_service(), name, machines, history)
    return render("chart.html", machines=machines, history=history, **_show(detail))


@blueprint.get("/ui/charts/<chart:name>/changes", provide_automatic_options=False)
def get_changes(name: str) -> Response:
    """The chart's last row in the log, held back until it is past `after`, or for 25 seconds; null once archived."""
    service = current_service()
    after = find_whole("after") or 1
    wait_for_rows(name, HistoryFilter(after=after, limit=1), WAIT_SECONDS)
    return jsonify({"seq": find_seq(service, name)})


@blueprint.get("/ui/charts/<chart:name>/versions/<int:version>", provide_automatic_options=False)
def get_chart_version(name: str, version: int) -> Response:
    """One version: its text, and what it changed in the one before it."""
    service = current_service()
    found = get_version(service, name, version)
    before = get_version(service, name, version - 1).text if version > 1 else ""
    return render("version.html", name=name, version=found, lines=compare(before, found.text), is_first=version == 1)


def _show(detail: Detail) -> dict[str, Any]:
    bounds = [stay.visit.entered_at for stay in detail.stays] + [detail.status.read_at]
    first = detail.samples[0].seq if detail.samples else 0
    points = [(float(sample.seq - first + 1), sample.at) for sample in detail.samples]

    def draw_bar(stay: Stay) -> Markup:
        return Markup(draw_stay(stay.visit.entered_at, stay.span, bounds[0], bounds[-1]))

    return {
        "detail": detail,
        "status": detail.status,
        "bearing": detail.bearing,
        "page_size": PAGE,
        "kinds": list_kinds(),
        "said": DONE.get(find_query("done", 20) or ""),
        "diagram": Markup(draw(detail.chart, detail.standing, max_states=PAGE_STATES)),
        "growth": Markup(draw_growth(points, bounds)),
        "entries": int(points[-1][0]) if points else 0,
        "draw_bar": draw_bar,
        "snippets": list_snippets(detail.chart, detail.status.current_state),
        "with_query": _with_query,
        "kept_by_machines": _list_kept(HISTORY_FIELDS),
        "kept_by_history": _list_kept(MACHINE_FIELDS),
    }


def _read_machines() -> MachineQuery:
    kind = find_query("is", 20) or "reported"
    if kind not in ("reported", "failed", "missing"):
        raise BadRequestError(f"is={kind} is none of reported, failed, missing")
    return MachineQuery(kind, find_query("machine") or "", find_whole("page") or 1)


def _read_history() -> HistoryQuery:
    kind = find_query("kind", 16)
    if kind is not None and kind not in list_kinds():
        raise BadRequestError(f"kind={kind} is none of {', '.join(list_kinds())}")
    return HistoryQuery(kind, find_query("by"), find_instant("since"), find_instant("until"), find_whole("before"))


def _list_kept(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, request.args[name]) for name in names if request.args.get(name)]


def _with_query(anchor: str = "", **changes: object) -> str:
    """This page with some of its query changed; None takes a field out."""
    fields = {name: request.args[name] for name in (*MACHINE_FIELDS, *HISTORY_FIELDS) if request.args.get(name)}
    fields |= {name: str(value) for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in fields.items() if changes.get(name, value) is not None}
    return request.path + (f"?{urlencode(kept)}" if kept else "") + (f"#{anchor}" if anchor else "")


# Each act with the role it needs.
ROLES = {
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "reset": Role.OPERATOR,
    "goto": Role.OPERATOR,
    "evict": Role.OPERATOR,
    "archive": Role.ADMIN,
}
_PLAIN: dict[str, Callable[..., object]] = {
    "pause": operate.pause,
    "resume": operate.resume,
    "reset": operate.reset,
    "archive": operate.archive,
}


@blueprint.post("/ui/charts/<chart:name>/<act>", provide_automatic_options=False)
def post_act(name: str, act: str) -> Response:
    """Do it, and show the chart as it is then."""
    if act not in ROLES:
        raise BadRequestError(f"{act} is none of {', '.join(ROLES)}")
    check(current_holder(), ROLES[act], name)
    service, author, reason = current_service(), current_author(), get_reason()
    if act == "goto":
        operate.goto(service, name, get_field("state", NAME_LENGTH), reason, author)
    elif act == "evict":
        operate.evict(service, name, get_field("machine", MACHINE_LENGTH), reason, author)
    else:
        _PLAIN[act](service, name, reason, author)
    return go_to("ui.get_index") if act == "archive" else go_to("ui.get_chart", name=name, done=act)
