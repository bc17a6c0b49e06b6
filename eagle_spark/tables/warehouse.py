"""How rows are written and published.

Publishing is write-audit-publish: rows go to a branch, sums are
checked there, and then `main` moves to the branch in one step. Readers read `main`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import EagleError, MainMoved, OutputError
from eagle_spark.spark.session import CATALOG
from eagle_spark.tables.definitions import RUNS
from eagle_spark.tables.runs import Run, versions
from eagle_spark.tables.schema import NAMESPACE, DataFile, Table, change_branch, sql_time
from eagle_spark.testing.failpoints import reached

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


class Warehouse:
    """The tables, as one job run sees them."""

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark
        spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {NAMESPACE}")

    def ensure(self, table: Table) -> None:
        """Create the table where it is missing; an older one gets the columns that it lacks.

        Raises:
            OutputError: when a table of that name has other columns.
        """
        self.spark.sql(table.create)
        for change in table.additions(_names(self.spark.table(table.full_name).schema)):
            self.spark.sql(change)
        found = self.spark.table(table.full_name).schema
        if _shape(found) != _shape(table.schema()):
            raise OutputError(
                f"{table.full_name} in this warehouse has other columns than this version writes: "
                f"wanted {_shape(table.schema())}; found {_shape(found)}"
            )

    def exists(self, table: Table) -> bool:
        return bool(self.spark.catalog.tableExists(table.full_name))

    def read(self, table: Table, branch: str = "main") -> DataFrame:
        """Return the published rows, or those of a branch."""
        return self.spark.table(_of_branch(table, branch))

    def at(self, table: Table, snapshot: int) -> DataFrame:
        """Return the rows of one snapshot."""
        return self.spark.sql(f"SELECT * FROM {table.full_name} VERSION AS OF {snapshot}")

    def branches(self, table: Table) -> set[str]:
        refs = self.spark.sql(f"SELECT name FROM {table.full_name}.refs").collect()
        return {row.name for row in refs}

    def open_branch(self, table: Table, branch: str) -> None:
        """Make `branch` at the present `main`; one left by a killed run is dropped."""
        self.drop_branch(table, branch)
        change_branch(self.spark, f"ALTER TABLE {table.full_name} CREATE BRANCH `{branch}`")

    def drop_branch(self, table: Table, branch: str) -> None:
        change_branch(self.spark, f"ALTER TABLE {table.full_name} DROP BRANCH IF EXISTS `{branch}`")

    def append(self, table: Table, rows: DataFrame, branch: str = "main") -> None:
        """Append rows in one commit; their columns must be the table's, in name, type and order."""
        if _shape(rows.schema) != _shape(table.schema()):
            raise EagleError(
                f"rows for {table.full_name}: wanted {_shape(table.schema())}; "
                f"got {_shape(rows.schema)}"
            )
        rows.writeTo(_of_branch(table, branch)).append()

    def remove(self, table: Table, condition: str, branch: str) -> None:
        """Delete the rows of the branch for which the SQL condition holds."""
        self.spark.sql(f"DELETE FROM {_of_branch(table, branch)} WHERE {condition}")

    def remove_paths(self, table: Table, paths: list[str], branch: str, also: str = "true") -> None:
        """Delete the rows of these paths on the branch for which the SQL condition holds."""
        if paths:
            self.remove(table, f"path IN (SELECT path FROM {self._view(paths)}) AND {also}", branch)

    def update_paths(
        self, table: Table, paths: list[str], changes: Mapping[str, str], branch: str
    ) -> None:
        """Set columns of the rows of these paths on the branch to SQL expressions.

        By MERGE: Spark reads the table twice for an UPDATE with a subquery, and where only one of
        the two readers gets to know which files it concerns, rows of the others are written again
        (Spark 4.1, Iceberg 1.12; seen in one of four runs).
        """
        query = f"SELECT path FROM {self._view(paths)}"
        self.merge(table, branch, query, "kept.path = found.path", changes)

    def merge(
        self, table: Table, branch: str, query: str, on: str, changes: Mapping[str, str]
    ) -> None:
        """Change rows (`kept`) of the branch that fit one of the query (`found`).

        The query names the table `{main}` and `{branch}`. It is text, as Spark 4.1 has no plan for
        a view of the table that it merges into.
        """
        name = _of_branch(table, branch)
        source = query.format(main=table.full_name, branch=name)
        assignments = ", ".join(f"{column} = {value}" for column, value in changes.items())
        self.spark.sql(
            f"MERGE INTO {name} AS kept USING ({source}) AS found ON {on} "
            f"WHEN MATCHED THEN UPDATE SET {assignments}"
        )

    def _view(self, paths: list[str]) -> str:
        rows = self.spark.createDataFrame([(path,) for path in paths], "path STRING")
        rows.createOrReplaceTempView("eagle_paths")
        return "eagle_paths"

    def snapshot(self, table: Table, branch: str = "main") -> int | None:
        """Return the id of the newest snapshot of the branch, or None when nothing was written."""
        row = self.spark.sql(
            f"SELECT snapshot_id FROM {table.full_name}.refs WHERE name = '{branch}'"
        ).first()
        return None if row is None else int(row.snapshot_id)

    def files(self, table: Table, snapshot: int) -> list[DataFile]:
        """Return the data files of a snapshot, ordered by path."""
        rows = self.spark.sql(
            f"SELECT file_path, partition FROM {table.full_name}.files "
            f"VERSION AS OF {snapshot} ORDER BY file_path"
        ).collect()
        return [DataFile(row.file_path, row.partition.asDict()) for row in rows]

    def publish(self, table: Table, branch: str) -> int | None:
        """Move `main` to the audited branch in one step, drop the branch, return the snapshot.

        Raises:
            MainMoved: when another run has published since the branch was made.
        """
        from pyspark.errors import IllegalArgumentException

        try:
            change_branch(
                self.spark,
                f"CALL {CATALOG}.system.fast_forward('{table.full_name}', 'main', '{branch}')",
            )
        except IllegalArgumentException as error:
            raise MainMoved(
                f"another run published to {table.full_name} in the meantime; run this job again"
            ) from error
        reached("publishing")
        self.drop_branch(table, branch)
        return self.snapshot(table)

    def expire(self, table: Table, before: datetime) -> None:
        """Forget snapshots made before that time, but the present one, and delete their files."""
        time = sql_time(before)
        old = self.spark.sql(
            f"SELECT 1 FROM {table.full_name}.snapshots WHERE committed_at < {time} "
            f"AND snapshot_id NOT IN (SELECT snapshot_id FROM {table.full_name}.refs)"
        )
        if old.first() is not None:
            self.spark.sql(
                f"CALL {CATALOG}.system.expire_snapshots(table => '{table.full_name}', "
                f"older_than => {time}, retain_last => 1)"
            )

    def resume_branch(self, table: Table, branch: str, mine: str) -> bool:
        """Make `branch`, or go on with the one that a killed run left; return whether it moved.

        Where `main` has moved since, a new branch of the present `main` takes over the rows, among
        those for which the SQL condition `mine` holds, that were written on the old one; they
        replace rows of the same path. Who wrote a row is told by its `run_id`.
        """
        if branch not in self.branches(table):
            self.open_branch(table, branch)
            return False
        main, tip = self.snapshot(table), self.snapshot(table, branch)
        known = self._ancestors(table, main)
        base = next((found for found in self._ancestors(table, tip) if found in known), None)
        if main is None or main == base:
            return False
        theirs = self.read(table).select("run_id")
        if base is not None:
            theirs = theirs.union(self.at(table, base).select("run_id"))
        left = self.read(table, branch).where(mine).join(theirs, "run_id", "left_anti")
        moved = f"{branch}_moved"
        self.open_branch(table, moved)
        left.select("path").createOrReplaceTempView("eagle_carried")
        self.remove(table, f"{mine} AND path IN (SELECT path FROM eagle_carried)", moved)
        self.append(table, left.select(*(column.name for column in table.columns)), moved)
        change_branch(
            self.spark,
            f"ALTER TABLE {table.full_name} REPLACE BRANCH `{branch}` "
            f"AS OF VERSION {self.snapshot(table, moved)}",
        )
        self.drop_branch(table, moved)
        return True

    def _ancestors(self, table: Table, snapshot: int | None) -> list[int]:
        """Return a snapshot and those before it, the newest first."""
        if snapshot is None:
            return []
        rows = self.spark.sql(
            f"CALL {CATALOG}.system.ancestors_of('{table.full_name}', {snapshot})"
        ).collect()
        return [row.snapshot_id for row in rows]

    def record_run(
        self,
        run: Run,
        result: dict[str, Any],
        *,
        snapshot_id: int | None = None,
        model_id: str | None = None,
    ) -> None:
        """Append the run's row to `runs`."""
        self.ensure(RUNS)
        row = (
            run.run_id,
            run.job,
            run.started,
            float(result["seconds"]),
            json.dumps(asdict(run.settings)),
            json.dumps(result),
            snapshot_id,
            model_id,
            versions(),
        )
        self.append(RUNS, self.spark.createDataFrame([row], RUNS.schema()))


def _of_branch(table: Table, branch: str) -> str:
    return table.full_name if branch == "main" else f"{table.full_name}.`branch_{branch}`"


def _shape(schema: StructType) -> list[tuple[str, str]]:
    return [(field.name, field.dataType.simpleString()) for field in schema.fields]


def _names(schema: StructType) -> list[str]:
    """Return the names of the columns, and `column.field` of structs."""
    from pyspark.sql.types import StructType

    return [
        name
        for column in schema.fields
        for name in (
            column.name,
            *(
                f"{column.name}.{field}"
                for field in (
                    column.dataType.names if isinstance(column.dataType, StructType) else ()
                )
            ),
        )
    ]
