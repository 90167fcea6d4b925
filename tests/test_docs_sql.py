"""docs/sql.md describes the tables and views that there are, and its queries run alike on both databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Boolean, Column, Engine, Integer, LargeBinary, String, inspect, text

from app import schema
from app.models import UtcDateTime, metadata
from tests.support.rows import NOON, insert_chart, insert_history

PAGE = (Path(__file__).parent.parent / "docs" / "sql.md").read_text()
QUERIES = re.findall(r"\*\*(.+?)\*\*[^\n]*\n\n```sql\n(.*?)```", PAGE, flags=re.DOTALL)


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the columns (name, type) that the page gives for each table and view."""
    parts = re.split(r"(?m)^### `(\w+)`$", PAGE)
    rows = re.compile(r"(?m)^\| `(\w+)` \| ([^|]+) \|")
    return {name: rows.findall(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def type_word(column: Column[object]) -> str:
    kinds = {
        UtcDateTime: "instant",
        Boolean: "boolean",
        BigInteger: "integer",
        Integer: "integer",
        String: "text",
        LargeBinary: "bytes",
    }
    word = next(word for kind, word in kinds.items() if isinstance(column.type, kind))
    return f"{word} or NULL" if column.nullable else word


def test_page_describes_every_table_and_view_and_no_other() -> None:
    assert set(sections()) == set(metadata.tables) | schema.VIEWS


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_page_describes_the_columns_of(table: str) -> None:
    expected = [(column.name, type_word(column)) for column in metadata.tables[table].columns]
    assert sections()[table] == expected


@pytest.mark.parametrize("view", sorted(schema.VIEWS))
def test_page_describes_the_columns_of_the_view(engine: Engine, view: str) -> None:
    columns = [column["name"] for column in inspect(engine).get_columns(view)]
    assert [name for name, _ in sections()[view]] == columns


@pytest.fixture
def filled_engine(engine: Engine) -> Engine:
    with engine.begin() as connection:
        insert_chart(connection, paused_at=NOON, paused_by="ann", pause_reason="disk errors", due_at=NOON)
        insert_history(connection)
    return engine


def test_page_answers_a_dozen_questions() -> None:
    assert len(QUERIES) >= 12
    assert len(QUERIES) == PAGE.count("```sql")


@pytest.mark.parametrize(("question", "query"), QUERIES, ids=[question for question, _ in QUERIES])
def test_query_runs_and_finds_something(filled_engine: Engine, question: str, query: str) -> None:
    with filled_engine.connect() as connection:
        rows = connection.execute(text(query.replace(":", r"\:"))).all()
    assert bool(rows) is (question != "Is a row of the log missing?")
