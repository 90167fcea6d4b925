"""The page of one chart: where it stands, what an operator does about it, and snippets for its machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, jsonify, request, url_for
from markupsafe import Markup

from app.core.chart import Chart
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
)
from app.service.reading import get_version, list_kinds
from app.service.runs import list_runs, list_states, say_ending, say_stays
from app.service.tokens import Role
from app.web.auth import check
from app.web.request import MACHINE_LENGTH, NAME_LENGTH, current_author, current_holder, current_service, wait_for_rows
from app.web.ui.base import blueprint, go_to, render, uses_tokens
from app.web.ui.diff import compare
from app.web.ui.forms import find_instant, find_query, find_whole, get_field, get_reason
from app.web.values import read_choice

# The fields of the page's two filters. A filter's form sends the other filter's fields too, so that both stay.
MACHINE_FIELDS = ("is", "machine", "page")
HISTORY_FIELDS = ("kind", "by", "since", "until", "before")
# With this page, the number of the first row is still one that the database holds.
MAX_PAGE = 10**9
MACHINE_CHOICES = ("reported", "failed", "missing")
# Runs that are side by side on one page.
PAGE_RUNS = 6
# Many proxies close a connection on which the server has been silent for a minute.
WAIT_SECONDS = 25
# The message on the page that follows an act or an import.
DONE = {
    "pause": "Paused.",
    "resume": "Resumed.",
    "reset": "Reset: a new run has begun.",
    "goto": "Moved.",
    "evict": "The slot is free again.",
    "created": "Imported: a new chart.",
    "upgraded": "Imported: a new version runs.",
    "unchanged": "Nothing to do: this version runs already.",
}


@blueprint.get("/ui/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """The chart's diagram, progress, machines, history, versions and snippets, and the forms for its acts."""
    machines, history = _read_machines(), _read_history()
    detail = get_detail(current_service(), name, machines, history)
    return render("chart.html", machines=machines, history=history, **_template_values(detail))


@blueprint.get("/ui/charts/<chart:name>/changes", provide_automatic_options=False)
def get_changes(name: str) -> Response:
    """The number of the chart's last log row; null if the chart is archived.

    The answer waits until that number is past `after`, for at most WAIT_SECONDS.
    """
    service = current_service()
    after = find_whole("after") or 1
    wait_for_rows(name, HistoryFilter(after=after, limit=1), WAIT_SECONDS)
    return jsonify({"seq": find_seq(service, name)})


@blueprint.get("/ui/charts/<chart:name>/versions/<number:version>", provide_automatic_options=False)
def get_chart_version(name: str, version: int) -> Response:
    """The text of one version, and what it changed in the version before it."""
    service = current_service()
    found = get_version(service, name, version)
    before = get_version(service, name, version - 1).text if version > 1 else ""
    return render("version.html", name=name, version=found, lines=compare(before, found.text), is_first=version == 1)


@blueprint.get("/ui/charts/<chart:name>/runs", provide_automatic_options=False)
def get_chart_runs(name: str) -> Response:
    """The latest runs side by side."""
    runs = list_runs(current_service(), name, PAGE_RUNS, find_whole("before"))
    return render(
        "runs.html", name=name, runs=runs, states=list_states(runs), say_stays=say_stays, say_ending=say_ending
    )


def _template_values(detail: Detail) -> dict[str, Any]:
    bounds = [stay.visit.entered_at for stay in detail.stays] + [detail.status.read_at]
    first = detail.samples[0].seq if detail.samples else 0
    points = [(float(sample.seq - first + 1), sample.at) for sample in detail.samples]

    def draw_bar(stay: Stay) -> Markup:
        return Markup(draw_stay(stay.visit.entered_at, stay.span, bounds[0], bounds[-1]))

    return {
        "detail": detail,
        "status": detail.status,
        "health": detail.health,
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
    kind = read_choice("is", find_query("is", 20) or "reported", MACHINE_CHOICES)
    return MachineQuery(kind, find_query("machine") or "", find_whole("page", MAX_PAGE) or 1)


def _read_history() -> HistoryQuery:
    kind = find_query("kind", 16)
    if kind is not None:
        read_choice("kind", kind, list_kinds())
    return HistoryQuery(kind, find_query("by"), find_instant("since"), find_instant("until"), find_whole("before"))


def _list_kept(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, request.args[name]) for name in names if request.args.get(name)]


def _with_query(anchor: str = "", **changes: object) -> str:
    """The address of this page with some fields of its query changed; None removes a field."""
    fields = {name: request.args[name] for name in (*MACHINE_FIELDS, *HISTORY_FIELDS) if request.args.get(name)}
    fields |= {name: str(value) for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in fields.items() if changes.get(name, value) is not None}
    return request.path + (f"?{urlencode(kept)}" if kept else "") + (f"#{anchor}" if anchor else "")


# The role that each act needs.
ROLES = {
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "reset": Role.OPERATOR,
    "goto": Role.OPERATOR,
    "evict": Role.OPERATOR,
    "archive": Role.ADMIN,
}
# The acts that need nothing but a reason.
_PLAIN: dict[str, Callable[..., object]] = {
    "pause": operate.pause,
    "resume": operate.resume,
    "reset": operate.reset,
    "archive": operate.archive,
}


@blueprint.post("/ui/charts/<chart:name>/<act>", provide_automatic_options=False)
def post_act(name: str, act: str) -> Response:
    """Do an act and go to the page that shows its result. Raises ForbiddenError, ReasonRequiredError, ConflictError."""
    check(current_holder(), ROLES[read_choice("act", act, tuple(ROLES))], name)
    service, author, reason = current_service(), current_author(), get_reason()
    if act == "goto":
        operate.goto(service, name, get_field("state", NAME_LENGTH), reason, author)
    elif act == "evict":
        operate.evict(service, name, get_field("machine", MACHINE_LENGTH), reason, author)
    else:
        _PLAIN[act](service, name, reason, author)
    return go_to("ui.get_index") if act == "archive" else go_to("ui.get_chart", name=name, done=act)


# Where the snippets expect the token: a file with the one line `Authorization: Bearer TOKEN` that only root can read.
TOKEN_FILE = "/etc/stateservice.header"


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
        f"  command \"do-the-work && curl -fsS{header} --retry 5 --retry-all-errors -X PUT '#{{url}}'\"\n"
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
