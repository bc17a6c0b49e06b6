"""The maintain job: compact small files, expire old snapshots, delete leftovers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, absolute_uri, join, list_folder, resolve
from eagle_spark.io.lock import lease
from eagle_spark.settings import MaintainSettings
from eagle_spark.spark.session import CATALOG, check_warehouse, open_session
from eagle_spark.tables import EPOCHS, METRICS, PREDICTIONS, RUNS, TABLES, Run, Table, Warehouse
from eagle_spark.tables.schema import sql_time
from eagle_spark.testing.failpoints import failpoint

# Tables that grow by many small commits; the others are written once, in large files.
COMPACTED = (PREDICTIONS, RUNS, EPOCHS, METRICS)
SMALL_FILES = 5  # of one partition: fewer are not compacted
TARGET_BYTES = 128 * 2**20
# Iceberg's own limit: files of a run that has not committed yet belong to no table.
ORPHAN_DAYS = 3
TEMP_FOLDERS = ("_staging", "_checkpoints")


@dataclass(frozen=True)
class MaintainResult:
    """The figures of a run: the JSON line of the job, and `result` in the table `runs`.

    Attributes:
        files_before: data files of the compacted tables before the run.
        files_after: data files of these tables after it.
        files: table -> data files before and after.
        branches_dropped: branches of killed runs.
        orphans_removed: files that no snapshot names.
        staging_removed: folders and files of killed runs.
        run_id: id of this run.
        seconds: wall time.
    """

    files_before: int
    files_after: int
    files: Mapping[str, tuple[int, int]]
    branches_dropped: int
    orphans_removed: int
    staging_removed: int
    run_id: str
    seconds: float


def maintain(settings: MaintainSettings) -> MaintainResult:
    """Compact small files, expire old snapshots, and delete the leftovers of killed runs.

    Readers see the same rows before and after. A table that a run writes, or wrote a short time
    before it was killed, is not compacted.

    Args:
        settings: of the job.

    Returns:
        The figures of the run.

    Raises:
        OutputError: when the warehouse cannot be written to.
        AlreadyRunningError: when another run of the job is active.

    Example::

        maintain(MaintainSettings(warehouse="hdfs:///warehouse"))
    """
    run = Run.begin("maintain", settings)
    before = datetime.now(timezone.utc) - timedelta(days=settings.keep_days)
    check_warehouse(settings.warehouse)
    place = join(absolute_uri(settings.warehouse), "cxr")
    with (
        lease(join(place, "_maintain.lease"), run.run_id),
        open_session("maintain", settings.warehouse) as spark,
    ):
        warehouse = Warehouse(spark)
        tables = [table for table in TABLES if warehouse.exists(table)]
        for table in tables:
            warehouse.record_published_run(table)  # its snapshot is about to be replaced
        failpoint("before write")
        branches = sum(_drop_branches(warehouse, table, before) for table in tables)
        # Before files are compacted: readers still use what was published until now.
        for table in tables:
            warehouse.expire(table, before)
            failpoint("written")
        failpoint("audited")
        files = {table.name: _compact(warehouse, table) for table in tables if table in COMPACTED}
        orphans = sum(_remove_orphans(warehouse, table) for table in tables)
        result = MaintainResult(
            files_before=sum(count for count, _ in files.values()),
            files_after=sum(count for _, count in files.values()),
            files=files,
            branches_dropped=branches,
            orphans_removed=orphans,
            staging_removed=sum(
                _delete_older_than(join(place, name), before) for name in TEMP_FOLDERS
            ),
            run_id=run.run_id,
            seconds=run.seconds,
        )
        warehouse.record_run(run.record(result))
    return result


def _compact(warehouse: Warehouse, table: Table) -> tuple[int, int]:
    """Rewrite small files of the published rows; return the number of files before and after."""
    before = _count_files(warehouse, table)
    if before >= SMALL_FILES and warehouse.branches(table) == {"main"}:
        warehouse.spark.sql(
            f"CALL {CATALOG}.system.rewrite_data_files(table => '{table.full_name}', "
            f"options => map('min-input-files', '{SMALL_FILES}', "
            f"'target-file-size-bytes', '{TARGET_BYTES}'))"
        )
        failpoint("publishing")
    return before, _count_files(warehouse, table)


def _count_files(warehouse: Warehouse, table: Table) -> int:
    ((count,),) = warehouse.spark.sql(f"SELECT count(*) FROM {table.full_name}.files").collect()
    return int(count)


def _drop_branches(warehouse: Warehouse, table: Table, before: datetime) -> int:
    """Drop branches that killed runs left and no run resumed; one equal to `main` is new."""
    rows = warehouse.spark.sql(
        f"SELECT r.name FROM {table.full_name}.refs r JOIN {table.full_name}.snapshots s "
        f"ON r.snapshot_id = s.snapshot_id WHERE r.type = 'BRANCH' AND r.name <> 'main' "
        f"AND r.snapshot_id <> {warehouse.snapshot(table) or 0} "
        f"AND s.committed_at < {sql_time(before)}"
    ).collect()
    for row in rows:
        warehouse.drop_branch(table, row.name)
    return len(rows)


def _remove_orphans(warehouse: Warehouse, table: Table) -> int:
    """Delete files below the table's folder that no snapshot names."""
    before = datetime.now(timezone.utc) - timedelta(days=ORPHAN_DAYS)
    removed = warehouse.spark.sql(
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{table.full_name}', "
        f"older_than => {sql_time(before)})"
    )
    return removed.count()


def _delete_older_than(folder: str, before: datetime) -> int:
    """Delete the entries of a folder whose newest file is older; return their number."""
    storage, place = resolve(folder)
    if not storage.exists(place):
        return 0
    newest: dict[str, int] = {}
    for entry in _listed(folder):
        name = entry.uri.removeprefix(f"{folder}/").split("/")[0]
        newest[name] = max(newest.get(name, 0), entry.modified)
    old = [name for name, modified in newest.items() if modified < before.timestamp() * 1000]
    for name in old:
        storage.delete(f"{place}/{name}")
    return len(old)


def _listed(folder: str) -> list[FileEntry]:
    """Return the files; a run that ends at the same time deletes its own."""
    for _ in range(3):
        with suppress(InputError):
            return list(list_folder(folder))
    return []
