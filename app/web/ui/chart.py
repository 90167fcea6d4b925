"""The page of one chart: where it stands, what an operator does about it, and snippets for its machines.

Its plot shows the reports and the failures of a visit, against their thresholds and over time. The snippets say how a
machine takes part, with statectl, curl, Chef and Ansible. Each claims a slot if the state has slots, reports a failure
if the state counts failures, survives a service that is away for a moment, and takes no redirect for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, jsonify, request, url_for
from markupsafe import Markup

from app.core.chart import FAILED_KEY, Chart, State
from app.core.errors import BadRequestError, ConflictError, ReasonRequiredError
from app.core.log import MICROSECOND, HistoryFilter
from app.core.plan import find_main_path
from app.core.position import Archive, Evict, Goto, Happening, Open, Pause, Reset, Resume
from app.diagram import draw
from app.diagram.plots import Panel, Stretch, draw_axis, draw_panel, draw_stay
from app.service import operate
from app.service.forecast import Count, Growth
from app.service.pages import (
    PAGE_STATES,
    Detail,
    MachineQuery,
    Stay,
    find_seq,
    get_detail,
)
from app.service.reading import EVERYTHING, FAILURES, PAGE_SIZE, HistoryQuery, get_version, list_kinds
from app.service.runs import list_runs, list_states, say_ending, say_stays
from app.service.tokens import Role
from app.service.words import say_number
from app.web.auth import check
from app.web.operate import REASON_LENGTH
from app.web.replies import find_status
from app.web.request import (
    MACHINE_LENGTH,
    NAME_LENGTH,
    current_author,
    current_holder,
    current_request,
    current_service,
    read_choice,
    read_instant,
    wait_for_rows,
)
from app.web.ui.base import (
    blueprint,
    find_field,
    find_instant,
    find_query,
    find_whole,
    get_field,
    get_reason,
    go_to,
    render,
    uses_tokens,
)
from app.web.ui.diff import compare

# The plot

# The time ahead takes at most so many times the room of the time that is over.
FARTHEST = 5


@dataclass(frozen=True, slots=True)
class Plot:
    """What the template shows: pairs of an axis and a plot, the counts in words, and the ends of the time shown."""

    panels: Sequence[tuple[Markup, Markup]]
    says: str
    start: datetime
    end: datetime


def draw_plot(growth: Growth) -> Plot:
    """Return the plot of a visit."""
    start, now = growth.visit.entered_at, max(growth.until, growth.visit.entered_at + MICROSECOND)
    ahead = [growth.forecast.p90] if growth.forecast is not None else []
    if growth.deadline is not None:
        ahead.append(growth.deadline[0])
    end = min(max([now, *ahead]), now + (now - start) * FARTHEST)
    stretch = Stretch(start, now, end)
    marks = [(now, "now")] if end > now else []
    if growth.forecast is not None and growth.forecast.p50 <= end:
        marks.append((growth.forecast.p50, "forecast"))
    if growth.deadline is not None and growth.deadline[0] <= end:
        marks.append(growth.deadline)
    panels = []
    for number, count in enumerate(growth.counts):
        panel = _describe(count, growth, is_first=number == 0)
        words = [(at, word if number == 0 else "") for at, word in marks]
        panels.append((Markup(draw_axis(panel)), Markup(draw_panel(panel, stretch, words))))
    return Plot(panels, ", ".join(count.says for count in growth.counts), start, end)


def _describe(count: Count, growth: Growth, *, is_first: bool) -> Panel:
    is_small = count.key == FAILED_KEY and not is_first
    aims = () if growth.forecast is None or not is_first else (growth.forecast.p50, growth.forecast.p90)
    label = "" if count.threshold is None else f"{count.target} at {say_number(count.threshold)}"
    return Panel(
        kind="failures" if is_small else "reports",
        points=count.points,
        threshold=count.threshold,
        label=label,
        says=f"{count.says}{'; ' + label if label else ''}",
        aims=aims,
        ticks=2 if is_small else 5,
    )


# Snippets

# The snippets read the token from this file, with the one line `Authorization: Bearer TOKEN`, that only root can read.
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


# The page

# The fields of the page's two filters. A filter's form sends the other filter's fields too, so that both stay.
MACHINE_FIELDS = ("is", "machine", "state", "visit", "page")
HISTORY_FIELDS = ("kind", "by", "words", "since", "until", "before")
# With this page, the number of the first row is still one that the database holds.
MAX_PAGE = 10**9
MACHINE_CHOICES = ("reported", "failed", "missing", "working")
# Runs that are side by side on one page.
PAGE_RUNS = 6
# Many proxies close a connection on which the server has been silent for a minute.
WAIT_SECONDS = 25
# The message on the page that follows an act or an import.
DONE = {
    "approve": "Approved.",
    "reject": "Rejected.",
    "open": "Opened.",
    "pause": "Paused.",
    "resume": "Resumed.",
    "reset": "Reset: a new run has begun.",
    "goto": "Moved.",
    "evict": "The slot is free again.",
    "created": "Imported: a new chart.",
    "upgraded": "Imported: a new version runs.",
    "unchanged": "Nothing to do: this version runs already.",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """An act that could not be done, with what the person had typed, for its dialog to show again."""

    act: str
    problem: str
    typed: Mapping[str, str]


@blueprint.get("/ui/charts/<chart:name>", provide_automatic_options=False)
def get_chart(name: str) -> Response:
    """The chart's diagram, progress, machines, history, versions and snippets, and the forms for its acts."""
    return _render_chart(name)


def _render_chart(name: str, status: int = 200, refused: Refused | None = None) -> Response:
    machines, history = _read_machines(), _read_history()
    detail = get_detail(current_service(), name, machines, history)
    values = _template_values(detail)
    return render("chart.html", status, machines=machines, history=history, refused=refused, **values)


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

    def draw_bar(stay: Stay) -> Markup:
        return Markup(draw_stay(stay.visit.entered_at, stay.span, bounds[0], bounds[-1]))

    return {
        "detail": detail,
        "status": detail.status,
        "health": detail.health,
        "page_size": PAGE_SIZE,
        "kinds": list_kinds(),
        "said": DONE.get(find_query("done", 20) or ""),
        "diagram": _draw(detail),
        "narrow_diagram": _draw(detail, is_narrow=True),
        "plot": None if detail.growth is None else draw_plot(detail.growth),
        "draw_bar": draw_bar,
        "snippets": list_snippets(detail.chart, detail.status.current_state),
        "with_query": _with_query,
        "kept_by_machines": _list_kept(HISTORY_FIELDS),
        "kept_by_history": _list_kept(MACHINE_FIELDS),
    }


def _draw(detail: Detail, *, is_narrow: bool = False) -> Markup:
    picture = draw(detail.chart, detail.standing, max_states=PAGE_STATES, link=_link_state, is_narrow=is_narrow)
    return Markup(picture)


def _link_state(state: str) -> str:
    """Where a state of the diagram leads: to its machines on the same page."""
    return _with_query("machines", state=state, visit=None, page=None)


def _read_machines() -> MachineQuery:
    return MachineQuery(
        kind=read_choice("is", find_query("is", 20) or "reported", MACHINE_CHOICES),
        text=find_query("machine") or "",
        page=find_whole("page", MAX_PAGE) or 1,
        state=find_query("state", NAME_LENGTH),
        visit=find_whole("visit", MAX_PAGE),
    )


def _read_history() -> HistoryQuery:
    kind = find_query("kind", 16)
    if kind is not None:
        read_choice("kind", kind, (EVERYTHING, FAILURES, *list_kinds()))
    return HistoryQuery(
        kind=kind,
        machine=find_query("by"),
        since=find_instant("since"),
        until=find_instant("until"),
        before=find_whole("before"),
        words=find_query("words"),
    )


def _list_kept(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, request.args[name]) for name in names if request.args.get(name)]


def _with_query(anchor: str = "", **changes: object) -> str:
    """The address of this page with some fields of its query changed; None removes a field."""
    fields = {name: request.args[name] for name in (*MACHINE_FIELDS, *HISTORY_FIELDS) if request.args.get(name)}
    fields |= {name: str(value) for name, value in changes.items() if value is not None}
    kept = {name: value for name, value in fields.items() if changes.get(name, value) is not None}
    page = url_for("ui.get_chart", name=(request.view_args or {})["name"])
    return page + (f"?{urlencode(kept)}" if kept else "") + (f"#{anchor}" if anchor else "")


# The role that each act needs.
ROLES = {
    "approve": Role.APPROVER,
    "reject": Role.APPROVER,
    "open": Role.OPERATOR,
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "reset": Role.OPERATOR,
    "goto": Role.OPERATOR,
    "evict": Role.OPERATOR,
    "archive": Role.ADMIN,
}
PLAIN_ACTS: dict[str, Callable[[str], Happening]] = {
    "pause": Pause,
    "resume": Resume,
    "reset": Reset,
    "archive": Archive,
}
# The attribute that each of the approvers' acts counts on.
APPROVALS = {
    "approve": "approved",
    "reject": "rejected",
}
# The acts that can be tried first: those that end the visit, and resuming, which may.
REHEARSED = frozenset({"reset", "goto", "archive", "resume"})


@blueprint.post("/ui/charts/<chart:name>/<act>", provide_automatic_options=False)
def post_act(name: str, act: str) -> Response:
    """Do an act and go to the page that shows its result; with the field `dry_run`, say in words what it would do.

    An act that cannot be done is answered with the chart's page, whose dialog has the reason and what was typed. Raises
    ForbiddenError.
    """
    check(current_holder(), ROLES[read_choice("act", act, tuple(ROLES))], name)
    is_dry_run = act in REHEARSED and "dry_run" in request.form
    try:
        if act in APPROVALS:
            person, reason = find_field("person", MACHINE_LENGTH), get_reason()
            operate.approve(current_service(), name, APPROVALS[act], reason, current_author(), person=person)
            return go_to("ui.get_chart", name=name, done=act)
        happening = _read_act(act, find_field("reason", REASON_LENGTH) or "" if is_dry_run else get_reason())
        if is_dry_run:
            rehearsal = operate.rehearse(current_service(), name, happening, current_author())
            lost = None if act == "resume" else rehearsal.loss.as_text()
            return jsonify({"lost": lost, "then": _say_then(rehearsal)})
        operate.act(current_service(), name, happening, current_author())
    except (ReasonRequiredError, BadRequestError, ConflictError) as error:
        if is_dry_run:
            raise
        current_request().problem = str(error)
        return _render_chart(name, find_status(error), Refused(act, str(error), request.form))
    return go_to("ui.get_index") if act == "archive" else go_to("ui.get_chart", name=name, done=act)


def _read_act(act: str, reason: str) -> Happening:
    """Return the act that the form describes. Raises BadRequestError."""
    if act == "goto":
        return Goto(get_field("state", NAME_LENGTH), reason)
    if act == "open":
        return Open(read_instant("until", get_field("until", 40)), reason)
    if act == "evict":
        return Evict(get_field("machine", MACHINE_LENGTH), reason)
    return PLAIN_ACTS[act](reason)


def _say_then(rehearsal: operate.Rehearsal) -> str:
    """Where the chart would be after a rehearsed act, in one sentence."""
    status = rehearsal.status
    return f"Then it is in {status.current_state}, run {status.run}: {status.health.because}."
