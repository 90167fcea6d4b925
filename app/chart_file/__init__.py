"""Chart files: YAML text to Chart with every problem at its line and column, Chart to YAML, the JSON Schema."""

from app.chart_file.dump import dump
from app.chart_file.parse import ParsedChart, parse
from app.chart_file.schema import json_schema
from app.chart_file.source import MAX_BYTES

__all__ = ["MAX_BYTES", "ParsedChart", "dump", "json_schema", "parse"]
