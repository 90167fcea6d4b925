"""Every query of the service, by name. All take a connection; none commits.

The statements of the two hot paths (a GET and a PUT on a state) are built once, at import, so that SQLAlchemy's
cache of compiled statements finds them.
"""

from app.store.acts import create_chart, drop_report_keys, rename_visits, set_archived, set_pause
from app.store.definitions import Version, add_version, get_version, list_versions, load_chart
from app.store.history import HashedRow, HistoryFilter, list_history, stream_history
from app.store.log import Author
from app.store.metrics import ChartGauge, count_charts, find_oldest_due, list_chart_gauges
from app.store.prune import find_old_rows, replace_rows
from app.store.record import CHANNEL, Change, Decision, record_all
from app.store.reports import MachineReport, find_latest_visit, list_reports
from app.store.rows import (
    ChartRow,
    build_position,
    get_chart,
    get_chart_and_now,
    get_chart_even_archived,
    list_all_chart_names,
    list_chart_names,
    list_charts,
    list_due_charts,
    list_marks,
    list_values,
    lock_chart,
    lock_chart_even_archived,
    lock_charts,
    lock_free_charts,
    read_now,
    read_values,
    read_values_and_now,
)
from app.store.slots import add_slot_waiter, count_reports, list_slot_waiters, list_slots, remove_slot_waiter
from app.store.standing import (
    find_reports,
    list_latest_visits,
    list_logged_keys,
    read_reports,
    read_slots,
    was_entered,
)
from app.store.tokens import TokenRow, add_token, find_token, find_token_named, list_tokens, revoke_token

__all__ = [
    "CHANNEL",
    "Author",
    "Change",
    "ChartGauge",
    "ChartRow",
    "Decision",
    "HashedRow",
    "HistoryFilter",
    "MachineReport",
    "TokenRow",
    "Version",
    "add_slot_waiter",
    "add_token",
    "add_version",
    "build_position",
    "count_charts",
    "count_reports",
    "create_chart",
    "drop_report_keys",
    "find_latest_visit",
    "find_old_rows",
    "find_oldest_due",
    "find_reports",
    "find_token",
    "find_token_named",
    "get_chart",
    "get_chart_and_now",
    "get_chart_even_archived",
    "get_version",
    "list_all_chart_names",
    "list_chart_gauges",
    "list_chart_names",
    "list_charts",
    "list_due_charts",
    "list_history",
    "list_latest_visits",
    "list_logged_keys",
    "list_marks",
    "list_reports",
    "list_slot_waiters",
    "list_slots",
    "list_tokens",
    "list_values",
    "list_versions",
    "load_chart",
    "lock_chart",
    "lock_chart_even_archived",
    "lock_charts",
    "lock_free_charts",
    "read_now",
    "read_reports",
    "read_slots",
    "read_values",
    "read_values_and_now",
    "record_all",
    "remove_slot_waiter",
    "rename_visits",
    "replace_rows",
    "revoke_token",
    "set_archived",
    "set_pause",
    "stream_history",
    "was_entered",
]
