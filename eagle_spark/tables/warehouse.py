"""The tables in a Spark session: create, read, append, branches, snapshots, runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import EagleError, OutputError
from eagle_spark.spark.session import CATALOG
from eagle_spark.tables.branch import RUN_PROPERTY, Branch
from eagle_spark.tables.commits import MAX_TRIES
from eagle_spark.tables.definitions import ACCEPTED, IMAGES, RUNS
from eagle_spark.tables.iceberg import IcebergTable, create_namespace
from eagle_spark.tables.run_rows import TIME, append_row, has_row, read_newest_rows
from eagle_spark.tables.runs import RunRecord
from eagle_spark.tables.schema import NAMESPACE, DataFile, Table, sql_time

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


@dataclass(frozen=True)
class BranchPreview:
    """The rows of `Warehouse.preview_branch`; None stands for no snapshot.

    Attributes:
        published: rows of `main`.
        unpublished: rows of a killed run, or of one that is active, that a run would resume.
        rows: all rows that a run would find on its branch.
    """

    published: DataFrame | None
    unpublished: DataFrame | None
    rows: DataFrame | None


class Warehouse:
    """The tables of one warehouse in one Spark session."""

    def __init__(self, spark: SparkSession) -> None:
        """Create the namespace of the tables if it is missing."""
        self.spark = spark
        create_namespace(spark, NAMESPACE.removeprefix(f"{CATALOG}."))

    def iceberg(self, table: Table) -> IcebergTable:
        """Return the table for work through Iceberg's API, without SQL."""
        return IcebergTable(self.spark, table.full_name)

    def create_or_migrate(self, table: Table) -> None:
        """Create the table, or add missing columns, struct fields and properties to an older one.

        Raises:
            OutputError: when a table of that name has other columns.
        """
        iceberg = self.iceberg(table)
        if not iceberg.exists():
            iceberg.create(table)
        while changes := table.changes(iceberg.schema()):
            try:
                for change in changes:
                    self.spark.sql(change)
                break
            except Exception:
                if table.changes(iceberg.schema()) == changes:  # no other run made them
                    raise
        schema = iceberg.schema()
        if _shape(schema) != _shape(table.schema()):
            raise OutputError(
                f"{table.full_name} in this warehouse has other columns than this version writes: "
                f"wanted {_shape(table.schema())}; got {_shape(schema)}"
            )
        iceberg.set_missing_properties(table.table_properties)

    def exists(self, table: Table) -> bool:
        return self.iceberg(table).exists()

    def read(self, table: Table, branch: str = "main") -> DataFrame:
        """Return the published rows, or those of a branch."""
        return self.spark.table(table.branch_name(branch))

    def read_snapshot(self, table: Table, snapshot: int) -> DataFrame:
        """Return the rows of one snapshot."""
        return self.spark.sql(f"SELECT * FROM {table.full_name} VERSION AS OF {snapshot}")

    def read_images(self, snapshot: int | None = None) -> DataFrame:
        """Return the accepted rows of `images`, of a snapshot or the current ones.

        Version 0.1 wrote accepted rows only, without the column `reason`.
        """
        rows = self.read(IMAGES) if snapshot is None else self.read_snapshot(IMAGES, snapshot)
        return rows.where(ACCEPTED) if "reason" in rows.columns else rows

    def append(self, table: Table, rows: DataFrame, branch: str = "main") -> None:
        """Append rows in one commit; columns have to match the table in name, type and order."""
        if _shape(rows.schema) != _shape(table.schema()):
            raise EagleError(
                f"rows for {table.full_name}: wanted {_shape(table.schema())}; "
                f"got {_shape(rows.schema)}"
            )
        rows.writeTo(table.branch_name(branch)).append()

    def delete(self, table: Table, condition: str, branch: str = "main") -> None:
        """Delete the rows for which the SQL condition holds."""
        self.spark.sql(f"DELETE FROM {table.branch_name(branch)} WHERE {condition}")

    def delete_paths(
        self, table: Table, paths: DataFrame, condition: str = "true", branch: str = "main"
    ) -> None:
        """Delete the rows whose `path` is in a frame and for which the SQL condition holds."""
        paths.select("path").createOrReplaceTempView("eagle_paths")
        self.delete(table, f"{condition} AND path IN (SELECT path FROM eagle_paths)", branch)

    @contextmanager
    def branch(self, table: Table, name: str, *, carry: str | None = None) -> Iterator[Branch]:
        """Open a branch of the table for one run: write, audit, publish.

        Args:
            table: exists already.
            name: of the branch.
            carry: SQL condition of the rows that the run writes. A branch of that name that a
                killed run left is then resumed, and remains if this run fails. Without it the
                branch begins as a copy of `main` and is dropped at the end of the block.
        """
        self.record_published_run(table)  # of the `main` that this run is going to replace
        if carry is not None and self.branches(table):  # no `main` before the first rows
            self.resume_branch(table, name, carry)
        else:
            self.create_branch(table, name)
        try:
            yield Branch(self, table, name, carry)
        finally:
            if carry is None:
                self.drop_branch(table, name)

    def branches(self, table: Table) -> set[str]:
        """Return the names of the branches, without tags."""
        return self.iceberg(table).branches()

    def create_branch(self, table: Table, branch: str) -> None:
        """Create `branch` at the present `main`; one that a killed run left is dropped."""
        self.iceberg(table).create_branch(branch)

    def drop_branch(self, table: Table, branch: str) -> None:
        self.iceberg(table).drop_branch(branch)

    def snapshot(self, table: Table, branch: str = "main") -> int | None:
        """Return the id of the newest snapshot of the branch, or None when nothing was written."""
        return self.iceberg(table).snapshot_id(branch)

    def files(self, table: Table, snapshot: int) -> list[DataFile]:
        """Return the data files of a snapshot, ordered by path."""
        rows = self.spark.sql(
            f"SELECT file_path, partition FROM {table.full_name}.files "
            f"VERSION AS OF {snapshot} ORDER BY file_path"
        ).collect()
        return [DataFile(row.file_path, row.partition.asDict()) for row in rows]

    def expire(self, table: Table, before: datetime) -> None:
        """Remove snapshots made before that time, except the present one, and their files."""
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

    def resume_branch(self, table: Table, branch: str, carry: str) -> bool:
        """Create `branch`, or resume the one that a killed run left; return whether it moved.

        If `main` has moved since, the branch begins anew at the present `main` and takes over the
        rows that were written on the old branch and for which the SQL condition `carry` holds;
        they replace rows of the same path. Rows are attributed to writers by `run_id`.
        """
        if branch not in self.branches(table):
            self.create_branch(table, branch)
            return False
        iceberg = self.iceberg(table)
        main = iceberg.snapshot_id()
        base = self._find_base(table, main, iceberg.snapshot_id(branch))
        if main is None or main == base:
            return False
        rows = self._exclude_runs(table, self.read(table, branch).where(carry), (main, base))
        moved = Branch(self, table, f"{branch}_moved", carry)
        self.create_branch(table, moved.name)
        moved.delete_paths(rows, carry)
        moved.append(rows.select(*(column.name for column in table.columns)))
        iceberg.replace_branch(branch, moved.name)
        return True

    def preview_branch(self, table: Table, branch: str, carry: str) -> BranchPreview:
        """Return the rows that a run would find on `branch`, without a change of the table.

        The rows are those of snapshots: they stay while other runs publish or drop the branch.

        Args:
            table: exists already.
            branch: need not exist.
            carry: as in `resume_branch`.
        """
        heads = self.iceberg(table).heads()
        main, tip = heads.get("main"), heads.get(branch)
        published = None if main is None else self.read_snapshot(table, main).where(carry)
        if tip is None:
            return BranchPreview(published, None, published)
        base = self._find_base(table, main, tip)
        rows = self.read_snapshot(table, tip).where(carry)
        unpublished = self._exclude_runs(table, rows, (main, base))
        if published is None or main == base:
            return BranchPreview(published, unpublished, rows)
        kept = published.join(unpublished.select("path"), "path", "left_anti")
        # Of two versions of the table: the older one may lack columns.
        rows = kept.unionByName(unpublished, allowMissingColumns=True)
        return BranchPreview(published, unpublished, rows)

    def _find_base(self, table: Table, main: int | None, tip: int | None) -> int | None:
        """Return the newest snapshot that `main` and a branch have in common; None without one."""
        iceberg = self.iceberg(table)
        published = set(iceberg.ancestor_ids(main))
        return next((one for one in iceberg.ancestor_ids(tip) if one in published), None)

    def _exclude_runs(
        self, table: Table, rows: DataFrame, snapshots: Iterable[int | None]
    ) -> DataFrame:
        """Return the rows of the runs that have no row in these snapshots."""
        for snapshot in {one for one in snapshots if one is not None}:
            others = self.read_snapshot(table, snapshot).select("run_id")
            rows = rows.join(others, "run_id", "left_anti")
        return rows

    def record_run(self, record: RunRecord, snapshot_id: int | None = None) -> None:
        """Write the run's row in `runs`; it replaces a row that `record_published_run` wrote."""
        self.create_or_migrate(RUNS)
        values = {**asdict(record), "snapshot_id": snapshot_id}
        has_record = self._has_record(record)
        if not has_record and append_row(self.iceberg(RUNS), values):
            return
        row = tuple(values[column.name] for column in RUNS.columns)
        rows = self.spark.createDataFrame([row], RUNS.schema())
        if not has_record:
            self.append(RUNS, rows)
            return
        rows.createOrReplaceTempView("eagle_run")
        for remaining in reversed(range(MAX_TRIES)):
            try:
                self.spark.sql(
                    f"MERGE INTO {RUNS.full_name} AS target USING eagle_run AS source "
                    "ON target.run_id = source.run_id WHEN MATCHED THEN UPDATE SET *"
                )
                return
            except Exception as error:  # Iceberg does not retry it where another run appended
                if not remaining or "conflicting files" not in str(error):
                    raise

    def record_published_run(self, table: Table) -> None:
        """Write the row in `runs` of the run that published `main`, unless it has one.

        A run that was killed between its publication and its row has none; the summary of the
        snapshot that it published holds it.
        """
        head = self.iceberg(table).head()
        if head is None or not (text := head.summary.get(RUN_PROPERTY)):
            return
        record = RunRecord.loads(text)
        if not self._has_record(record):
            self.record_run(record, head.id)

    def _has_record(self, record: RunRecord) -> bool:
        if not self.exists(RUNS):
            return False
        has_record = has_row(self.iceberg(RUNS), record)
        if has_record is None:
            return not self.read(RUNS).where(f"run_id = '{record.run_id}'").isEmpty()
        return has_record

    def read_newest_runs(
        self,
        columns: Sequence[str],
        condition: Mapping[str, str],
        limit: int,
        prefix: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return columns of the newest rows of `runs`, the newest first.

        Args:
            columns: that the table has; see `create_or_migrate`.
            condition: column to the text that it has to equal.
            limit: number of rows, at most.
            prefix: column to the text that it has to begin with where it is not null.
        """
        from pyspark.sql.functions import col

        if not self.exists(RUNS):
            return []
        rows = read_newest_rows(self.iceberg(RUNS), columns, condition, prefix or {}, limit)
        if rows is not None:
            return rows
        frame = self.read(RUNS)
        for column, text in condition.items():
            frame = frame.where(col(column) == text)
        for column, text in (prefix or {}).items():
            frame = frame.where(col(column).isNull() | col(column).startswith(text))
        newest = frame.orderBy(TIME, ascending=False).select(*columns).take(limit)
        return [row.asDict() for row in newest]


def _shape(schema: StructType) -> list[tuple[str, str]]:
    return [(field.name, field.dataType.simpleString()) for field in schema.fields]
