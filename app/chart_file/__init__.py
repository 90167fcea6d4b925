"""Chart files: YAML text to Chart with every problem at its line and column, Chart to YAML, the JSON Schema."""

from app.chart_file.chart import ParsedChart, parse
from app.chart_file.dump import dump
from app.chart_file.nodes import MAX_BYTES
from app.chart_file.schema import json_schema

__all__ = ["MAX_BYTES", "ParsedChart", "dump", "json_schema", "parse"]
