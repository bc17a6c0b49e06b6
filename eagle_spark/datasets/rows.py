"""Rows of `images` from what is known of a file: staged rows, decisions, rejections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from eagle_spark.datasets.changes import REJECTION, Rejection
from eagle_spark.settings import PreprocessSettings
from eagle_spark.tables import IMAGES, Run


def accepted_constants(run: Run[PreprocessSettings]) -> dict[str, object]:
    """Return the columns that have one value in all accepted rows of a run."""
    return {"status": "accepted", "ingested_at": run.started, "run_id": run.run_id}


def rejected_rows(rejections: Sequence[Rejection], run: Run[PreprocessSettings]) -> pa.Table:
    """Return rows of `images` for rejections."""
    rows = pa.Table.from_pylist([asdict(entry) for entry in rejections], schema=REJECTION)
    return complete_rows(rows, accepted_constants(run) | {"status": "rejected"})


def complete_rows(rows: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    """Return rows with all columns of `images`, in their order.

    Args:
        rows: some of the columns.
        constants: column -> value in all rows; columns that are in neither are null.
    """
    schema, count = IMAGES.arrow_schema(), rows.num_rows
    columns = [
        rows[field.name]
        if field.name in rows.column_names
        else pa.repeat(pa.scalar(constants[field.name], field.type), count)
        if field.name in constants
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
