"""Chart files: reads YAML text as a Chart, writes a Chart as YAML, and describes the format as a JSON Schema.

Reading finds every problem in the file and reports each with its line and column.
"""

from app.chart_file.chart import ParsedChart, hold_to_rosters, parse
from app.chart_file.checks import keeps_promises
from app.chart_file.dump import dump
from app.chart_file.nodes import MAX_BYTES
from app.chart_file.schema import json_schema

__all__ = ["MAX_BYTES", "ParsedChart", "dump", "hold_to_rosters", "json_schema", "keeps_promises", "parse"]
