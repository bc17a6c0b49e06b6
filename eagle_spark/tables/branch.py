"""Write, audit, publish: rows reach readers of a table in one step, after a check of the whole.

Rows go to a branch; an audit reads the branch; `main` moves to the branch. Readers read `main`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from eagle_spark.errors import AuditError, CommitConflictError
from eagle_spark.tables.data_files import WrittenFile
from eagle_spark.tables.iceberg import Snapshot
from eagle_spark.tables.runs import RunRecord
from eagle_spark.tables.schema import Table
from eagle_spark.testing.failpoints import failpoint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from eagle_spark.tables.warehouse import Warehouse

MAX_ATTEMPTS = 6  # to publish, where other runs publish first
T = TypeVar("T")

RUN_PROPERTY = "eagle.run"  # of the summary of the snapshot that a run publishes


class Branch:
    """A branch of a table that one run writes.

    Attributes:
        table: of the branch.
        name: of the branch.
    """

    def __init__(self, warehouse: Warehouse, table: Table, name: str, carry: str | None) -> None:
        """See `Warehouse.branch`, which makes branches."""
        self.table, self.name = table, name
        self._warehouse, self._carry = warehouse, carry
        self._appended: list[int] = []  # snapshots of `append_files`

    @property
    def full_name(self) -> str:
        """The name of the branch in SQL."""
        return self.table.branch_name(self.name)

    @property
    def snapshot(self) -> int | None:
        """The id of the newest snapshot; None before the first commit."""
        return self._warehouse.snapshot(self.table, self.name)

    @property
    def head(self) -> Snapshot | None:
        """The newest snapshot; None before the first commit."""
        return self._warehouse.iceberg(self.table).head(self.name)

    def read(self) -> DataFrame:
        """Return the rows of the branch."""
        return self._warehouse.read(self.table, self.name)

    def append(self, rows: DataFrame) -> None:
        """Append rows in one commit; columns have to match the table in name, type and order."""
        self._warehouse.append(self.table, rows, self.name)

    def append_files(self, files: Sequence[WrittenFile]) -> None:
        """Append data files that workers wrote, in one commit.

        Raises:
            AuditError: when a file is not as its worker left it, or another run committed to the
                branch.
        """
        snapshot = self._warehouse.iceberg(self.table).append_files(self.name, files, {})
        self._appended.append(snapshot.id)

    def count_appended(self, start: Snapshot) -> int | None:
        """Return the number of rows that were appended to a snapshot.

        Args:
            start: of the branch, before the first call of `append_files`.

        Returns:
            None where other commits than those of `append_files` followed, such as those of another
            run or of `resume_branch`, or where a commit did not count the rows.
        """
        head, commits = self.head, [*reversed(self._appended), start.id]
        if head is None or head.rows is None or start.rows is None:
            return None
        ancestors = self._warehouse.iceberg(self.table).ancestor_ids(head.id)
        return head.rows - start.rows if ancestors[: len(commits)] == commits else None

    def delete(self, condition: str) -> None:
        """Delete the rows for which the SQL condition holds."""
        self._warehouse.delete(self.table, condition, self.name)

    def delete_paths(self, paths: DataFrame, condition: str = "true") -> None:
        """Delete the rows whose `path` is in a frame and for which the SQL condition holds."""
        self._warehouse.delete_paths(self.table, paths, condition, self.name)

    def update_paths(
        self, paths: DataFrame, changes: Mapping[str, str], condition: str = "true"
    ) -> None:
        """Set columns of the rows (`target`) whose `path` is in a frame to SQL expressions.

        By MERGE: Spark reads the table twice for an UPDATE with a subquery, and where only one of
        the two readers gets the filter of files, rows of the others are written again (Spark 4.1,
        Iceberg 1.12; seen in one of four runs).
        """
        paths.select("path").createOrReplaceTempView("eagle_paths")
        on = f"target.path = source.path AND {condition}"
        self.merge("SELECT path FROM eagle_paths", on, changes)

    def merge(self, query: str, on: str, changes: Mapping[str, str]) -> None:
        """Update the rows (`target`) that match a row of a query (`source`).

        Args:
            query: SQL text; `{main}` and `{branch}` in it are the table and this branch. Text, as
                Spark 4.1 has no plan for a view of the table that it merges into.
            on: SQL condition over `target` and `source`.
            changes: column to SQL expression.
        """
        source = query.format(main=self.table.full_name, branch=self.full_name)
        assignments = ", ".join(f"{column} = {value}" for column, value in changes.items())
        self._warehouse.spark.sql(
            f"MERGE INTO {self.full_name} AS target USING ({source}) AS source ON {on} "
            f"WHEN MATCHED THEN UPDATE SET {assignments}"
        )

    def publish(
        self,
        audit: Callable[[DataFrame], T],
        record: Callable[[T], RunRecord | None],
        guard: Callable[[], None] = lambda: None,
    ) -> tuple[T, int | None]:
        """Audit the branch, move `main` to it in one step and drop it.

        The record of the run goes into the summary of the snapshot that is published: a run is
        published and recorded by one act, see `Warehouse.record_published_run`. Where another run
        published first, a branch that may be carried over is moved onto the new `main` and audited
        again.

        Args:
            audit: takes the rows of the branch; raises, or returns the figures of the run.
            record: makes the record of the run from its figures; None records no run.
            guard: is called right before `main` moves; raises if this run may not publish.

        Returns:
            The figures, and the snapshot of `main`.

        Raises:
            AuditError: when the branch changes between audit and publication.
            CommitConflictError: when another run published since the branch was made.
        """
        for remaining in reversed(range(MAX_ATTEMPTS if self._carry else 1)):
            audited = self.snapshot
            figures = audit(self.read())
            failpoint("audited")
            try:
                return figures, self._move_main(audited, record(figures), guard)
            except CommitConflictError:
                if not remaining or self._carry is None:
                    raise
                self._warehouse.record_published_run(self.table)
                self._warehouse.resume_branch(self.table, self.name, self._carry)
        raise AssertionError

    def _move_main(
        self, audited: int | None, record: RunRecord | None, guard: Callable[[], None]
    ) -> int | None:
        iceberg, published = self._warehouse.iceberg(self.table), audited
        guard()
        self._check(audited, self.snapshot)
        if record and audited != iceberg.snapshot_id():
            seal = iceberg.commit_properties(self.name, {RUN_PROPERTY: record.dumps()})
            self._check(audited, seal.parent_id)
            guard()
            published = seal.id
        iceberg.publish(self.name)
        failpoint("publishing")
        return published

    def _check(self, audited: int | None, snapshot: int | None) -> None:
        if snapshot != audited:
            raise AuditError(f"branch {self.name} has changed since it was audited")
