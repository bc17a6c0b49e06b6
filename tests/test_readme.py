"""What the README says runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.session import open_session
from eagle_spark.settings import PreprocessSettings, ScoreSettings, TrainSettings
from eagle_spark.tables import TABLES, Warehouse

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.spark
def test_every_query_runs_on_the_tables(spark: Any, tmp_path: Path) -> None:
    queries = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    assert len(queries) >= 5
    with open_session("test", str(tmp_path)) as session:
        warehouse = Warehouse(session)
        for table in TABLES:
            warehouse.ensure(table)
        for sql in queries:
            assert session.sql(sql).collect() == []


@pytest.mark.parametrize("kind", [PreprocessSettings, TrainSettings, ScoreSettings])
def test_every_option_is_described(kind: type) -> None:
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        assert f"`--{name.replace('_', '-')}" in README


def test_every_table_is_described() -> None:
    for table in TABLES:
        assert f"| `{table.name}` |" in README
