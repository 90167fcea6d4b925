"""Every query of the service, by name. All take a connection; none commits.

The statements of the two hot paths (a GET and a PUT on a state) are built once, at import, so that SQLAlchemy's
cache of compiled statements finds them.
"""

from app.store.definitions import Version, add_version, get_version, list_versions, load_chart
from app.store.history import HashedRow, HistoryFilter, list_history
from app.store.record import Author, create_chart, drop_report_keys, record, rename_visits, set_archived, set_pause
from app.store.rows import (
    ChartRow,
    build_position,
    find_logged_key,
    find_standing_report,
    get_chart,
    get_chart_and_now,
    get_chart_even_archived,
    list_all_chart_names,
    list_chart_names,
    list_charts,
    list_due_charts,
    list_values,
    lock_chart,
    lock_chart_even_archived,
    read_now,
    read_reports,
    read_slots,
    read_values,
    read_values_and_now,
    was_entered,
)

__all__ = [
    "Author",
    "ChartRow",
    "HashedRow",
    "HistoryFilter",
    "Version",
    "add_version",
    "build_position",
    "create_chart",
    "drop_report_keys",
    "find_logged_key",
    "find_standing_report",
    "get_chart",
    "get_chart_and_now",
    "get_chart_even_archived",
    "get_version",
    "list_all_chart_names",
    "list_chart_names",
    "list_charts",
    "list_due_charts",
    "list_history",
    "list_values",
    "list_versions",
    "load_chart",
    "lock_chart",
    "lock_chart_even_archived",
    "read_now",
    "read_reports",
    "read_slots",
    "read_values",
    "read_values_and_now",
    "record",
    "rename_visits",
    "set_archived",
    "set_pause",
    "was_entered",
]
