"""Schemas of Arrow, Spark and SQL, all from the definitions of the tables."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

import eagle_spark
from eagle_spark.imaging.decode import DICOM_TAGS
from eagle_spark.tables import IMAGES, PREDICTIONS, TABLES, Table
from eagle_spark.tables.schema import arrow_type

ANOTHERS_START = ("eagle_spark.viewer.",)  # windows


def arrow_schemas() -> Iterator[tuple[str, pa.Schema]]:
    """Yield every Arrow schema that a module of the package keeps, by its name."""
    for module in pkgutil.walk_packages(eagle_spark.__path__, "eagle_spark."):
        if not module.name.startswith(ANOTHERS_START):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, pa.Schema):
                    yield f"{module.name}.{name}", value


@pytest.mark.train
@pytest.mark.slow("imports TensorFlow with the modules of training")
def test_no_module_has_columns_of_a_table_of_another_type() -> None:
    found = dict(arrow_schemas())
    assert len(found) > 5
    for table in TABLES:
        columns = {field.name: field.type for field in table.arrow_schema()}
        for name, schema in found.items():
            shared = [field for field in schema if field.name in columns]
            if len(shared) > 0.6 * len(columns):  # rows of this table
                assert {one.name: one.type for one in shared}.items() <= columns.items(), name


@pytest.mark.spark
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_arrow_has_the_types_that_spark_exchanges(table: Table, spark: Any) -> None:
    from pyspark.sql.pandas.types import to_arrow_schema

    wanted = to_arrow_schema(table.schema())
    assert [(one.name, one.type) for one in table.arrow_schema()] == [
        (one.name, one.type) for one in wanted
    ]


def test_columns_come_in_the_order_in_which_they_are_named() -> None:
    assert PREDICTIONS.arrow_schema("path", "image_id").names == ["path", "image_id"]
    with pytest.raises(KeyError):
        PREDICTIONS.arrow_schema("no_such_column")


def test_a_type_that_no_table_has_is_refused() -> None:
    with pytest.raises(KeyError, match="DECIMAL"):
        arrow_type("DECIMAL")


@pytest.mark.parametrize("table", [IMAGES, PREDICTIONS], ids=lambda table: table.name)
def test_the_tags_of_dicom_files_are_those_that_the_reader_keeps(table: Table) -> None:
    (column,) = (column for column in table.columns if column.name == "dicom")
    assert tuple(name for name, _ in column.fields) == DICOM_TAGS
