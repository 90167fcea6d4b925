"""What each command asks a server, and how its answer is printed: by the function that prints it on the database."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from app import chart_file
from app.cli import calendar, roster, token
from app.cli.chart import (
    check_expected,
    print_approval,
    print_charts,
    print_history,
    print_machines,
    print_verified,
)
from app.cli.lab import print_runs
from app.cli.remote import ANYTHING, Ask, Parameters, Remote, as_text, chart_path, path_of
from app.cli.shared import NO, USAGE, current_author, fail, print_json, print_problems, read_file
from app.cli.subscription import print_deliveries, print_put, print_subscriptions, print_test
from app.core.errors import ChartFileError, Problem
from app.service.calendars import check_name as check_calendar_name
from app.service.operate import require_reason, say_imported, say_no_approvers, say_not_counted
from app.service.runs import Run
from app.service.subscriptions import check_name, read_wanted
from app.service.tokens import check_wanted, read_role
from app.service.verifying import Verification

# Charts


def _list_charts(remote: Remote, given: Parameters) -> None:
    print_charts(remote.json("GET", "/charts"), as_json=given["as_json"])


def _show_chart(remote: Remote, given: Parameters) -> None:
    path, query = chart_path(given["name"]), {"at": given.get("at")}
    if given["as_json"]:
        print_json(remote.json("GET", path, query))
    else:
        remote.print_text(path, query)


def _import_chart(remote: Remote, given: Parameters) -> None:
    file, text = given["file"], read_file(given["file"])
    try:
        stem = None if file == "-" else Path(file).stem
        name = chart_file.parse(text, name=given["name"], default_name=stem).chart.name
    except ChartFileError as error:
        print_problems(file, error.problems)
        sys.exit(USAGE)
    query = {"dry_run": given["dry_run"], "map": list(given["maps"])}
    found = remote.json("PUT", chart_path(name), query, body=text, file=file)
    warnings = [Problem(one["line"], one["column"], one["message"]) for one in found["warnings"]]
    print_problems(file, warnings, kind="warning")
    if given["as_json"]:
        print_json(found)
        return
    click.echo(say_imported(found), nl=False)


def _export_chart(remote: Remote, given: Parameters) -> None:
    remote.print_text(chart_path(given["name"]), accept="application/yaml")


def _draw_chart(remote: Remote, given: Parameters) -> None:
    query = {"format": given["form"], "theme": given["theme"]}
    remote.print_text(chart_path(given["name"], "diagram"), query, accept=ANYTHING)


def _list_machines(remote: Remote, given: Parameters) -> None:
    path = chart_path(given["name"], "machines")
    query = {name: given[name] for name in ("state", "run", "visit", "key")}
    which = query["is"] = "missing" if given["missing"] else given["which"]
    if given["as_csv_"] and not given["as_json"]:
        remote.print_text(path, query, accept="text/csv")
    else:
        print_machines(remote.json("GET", path, query), which, as_json=given["as_json"])


def _print_history(remote: Remote, given: Parameters) -> None:
    path, form = chart_path(given["name"], "history"), given["form"]
    query = {name: given[name] for name in ("after", "limit", "kind", "machine", "since", "until")}
    if form is None:
        print_history(remote.rows(path, query))
    elif form == "json":
        lines = [json.dumps(row, ensure_ascii=False) for row in remote.rows(path, query)]
        click.echo("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")
    else:
        remote.print_text(path, query, accept={"csv": "text/csv", "ndjson": "application/x-ndjson"}[form])


def _verify(remote: Remote, given: Parameters) -> None:
    names, expect = given["names"], given["expect"]
    check_expected(names, expect)
    paths = (chart_path(name, "verify") for name in names or remote.json("GET", "/logs"))
    answers = (remote.json("GET", path, {"expect": expect}) for path in paths)
    print_verified(map(Verification.of_json, answers), as_json=given["as_json"])


def _list_runs(remote: Remote, given: Parameters) -> None:
    query = {"limit": given["limit"], "before": given["before"]}
    found = remote.json("GET", chart_path(given["name"], "runs"), query)
    print_runs([Run.of_json(run) for run in found], as_json=given["as_json"])


def _act(act: str, *fields: str) -> Ask:
    """Return what asks for an operator's act, whose body has the reason and `fields`."""

    def ask(remote: Remote, given: Parameters) -> None:
        if not given.get("dry_run"):
            # Acts that can be rehearsed have it as an option that may be left out.
            require_reason(given["reason"], *(("--reason TEXT",) if "dry_run" in given else ()))
        values = {name: as_text(given[name]) for name in ("reason", *fields) if given[name] is not None}
        path, query = chart_path(given["name"], act), {"dry_run": given.get("dry_run")}
        if given["as_json"]:
            print_json(remote.json("POST", path, query, body=values))
        else:
            remote.print_text(path, query, method="POST", body=values)

    return ask


def _approve(key: str) -> Ask:
    """Return what reports on the attribute `key` of the current state, in the name of the token's holder."""

    def ask(remote: Remote, given: Parameters) -> None:
        name = given["name"]
        status = remote.json("GET", chart_path(name))
        if status["who"] != "approvers":
            fail(say_no_approvers(name, status["current_state"]), NO)
        query = {"state": status["current_state"], "key": key, "note": require_reason(given["reason"])}
        if not remote.has_token:
            query["machine"] = current_author().actor
        answer = remote.json("PUT", chart_path(name, "state"), query, accepted=(406,))
        if answer["answer"] == "no":
            fail(say_not_counted(name, status["version"], answer["reason"]), NO)
        print_approval(answer)

    return ask


# Rosters, calendars, tokens


def _import_roster(remote: Remote, given: Parameters) -> None:
    name, file = given["name"], given["file"]
    roster.check_name(name)
    query = {
        "max_loss": f"{float(given['max_loss'] * 100):.12f}".rstrip("0").rstrip(".") + "%",
        "dry_run": given["dry_run"],
    }
    found = remote.json("PUT", path_of("rosters", name), query, body=read_file(file), file=file)
    roster.print_imported(found, as_json=given["as_json"])


def _list_rosters(remote: Remote, given: Parameters) -> None:
    roster.print_rosters(remote.json("GET", "/rosters"), as_json=given["as_json"])


def _show_roster(remote: Remote, given: Parameters) -> None:
    version = () if given["version"] is None else ("versions", str(given["version"]))
    path = path_of("rosters", given["name"], *version)
    query = {"where": [f"{label}:{','.join(values)}" for label, values in given["where"]]}
    if given["as_json"]:
        print_json(remote.json("GET", path, query))
    else:
        remote.print_text(path, query)


def _diff_roster(remote: Remote, given: Parameters) -> None:
    path, query = path_of("rosters", given["name"], "diff"), {"from": given["before"], "to": given["after"]}
    if given["as_json"]:
        print_json(remote.json("GET", path, query))
    else:
        remote.print_text(path, query)


def _import_calendar(remote: Remote, given: Parameters) -> None:
    file = given["file"]
    name, text = calendar.name_of(file, given["name"]), read_file(file)
    check_calendar_name(name)
    found = remote.json("PUT", path_of("calendars", name), body=text, file=file)
    calendar.print_imported(found, as_json=given["as_json"])


def _list_calendars(remote: Remote, given: Parameters) -> None:
    calendar.print_calendars(remote.json("GET", "/calendars"), as_json=given["as_json"])


def _show_calendar(remote: Remote, given: Parameters) -> None:
    path = path_of("calendars", given["name"])
    if given["as_text"]:
        remote.print_text(path, accept="text/calendar")
    else:
        calendar.print_calendar(remote.json("GET", path), as_json=given["as_json"])


def _create_token(remote: Remote, given: Parameters) -> None:
    lifetime = given["lifetime"]
    check_wanted(given["name"], read_role(given["role"]), given["pattern"], given["machine"], lifetime)
    fields = {"role": given["role"], "charts": given["pattern"], "machine": given["machine"]}
    fields["expires"] = None if lifetime is None else f"PT{lifetime.total_seconds():.6f}S"
    token.print_secret(remote.json("PUT", path_of("tokens", given["name"]), body=fields)["token"])


def _list_tokens(remote: Remote, given: Parameters) -> None:
    token.print_tokens(remote.json("GET", "/tokens"), as_json=given["as_json"])


def _revoke_token(remote: Remote, given: Parameters) -> None:
    remote.json("DELETE", path_of("tokens", given["name"]))
    click.echo(f"{given['name']}: revoked")


# Subscriptions


def _set_subscription(remote: Remote, given: Parameters) -> None:
    fields = {"url": given["url"], "secret": given["secret"], "format": given["form"]}
    fields |= {name: list(given[name]) for name in ("charts", "kinds") if given[name]}
    body = {name: value for name, value in fields.items() if value is not None}
    read_wanted(body)
    check_name(given["name"])
    found = remote.json("PUT", path_of("subscriptions", given["name"]), body=body)
    print_put(given["name"], found, is_new="secret" in found)


def _list_subscriptions(remote: Remote, given: Parameters) -> None:
    print_subscriptions(remote.json("GET", "/subscriptions"), as_json=given["as_json"])


def _show_subscription(remote: Remote, given: Parameters) -> None:
    print_json(remote.json("GET", path_of("subscriptions", given["name"])))


def _delete_subscription(remote: Remote, given: Parameters) -> None:
    remote.json("DELETE", path_of("subscriptions", given["name"]))
    click.echo(f"{given['name']}: deleted")


def _test_subscription(remote: Remote, given: Parameters) -> None:
    print_test(given["name"], remote.json("POST", path_of("subscriptions", given["name"], "test")))


def _list_deliveries(remote: Remote, given: Parameters) -> None:
    found = remote.json("GET", path_of("subscriptions", given["name"], "deliveries"), {"limit": given["limit"]})
    print_deliveries(found, as_json=given["as_json"])


ASKS: dict[str, Ask] = {
    "chart list": _list_charts,
    "chart show": _show_chart,
    "chart import": _import_chart,
    "chart export": _export_chart,
    "chart diagram": _draw_chart,
    "chart machines": _list_machines,
    "chart history": _print_history,
    "chart runs": _list_runs,
    "chart verify": _verify,
    "chart pause": _act("pause"),
    "chart resume": _act("resume"),
    "chart reset": _act("reset"),
    "chart goto": _act("goto", "state"),
    "chart open": _act("open", "until"),
    "chart evict": _act("evict", "machine"),
    "chart archive": _act("archive"),
    "chart approve": _approve("approved"),
    "chart reject": _approve("rejected"),
    "roster import": _import_roster,
    "roster list": _list_rosters,
    "roster show": _show_roster,
    "roster diff": _diff_roster,
    "calendar import": _import_calendar,
    "calendar list": _list_calendars,
    "calendar show": _show_calendar,
    "token create": _create_token,
    "token list": _list_tokens,
    "token revoke": _revoke_token,
    "subscription set": _set_subscription,
    "subscription list": _list_subscriptions,
    "subscription show": _show_subscription,
    "subscription delete": _delete_subscription,
    "subscription test": _test_subscription,
    "subscription deliveries": _list_deliveries,
}
