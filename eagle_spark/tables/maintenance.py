"""The maintain job: small files become large ones, and what no run needs any more goes."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, absolute_uri, join, list_folder, locate
from eagle_spark.io.lock import lease
from eagle_spark.settings import MaintainSettings
from eagle_spark.spark.session import CATALOG, check_warehouse, open_session
from eagle_spark.tables import EPOCHS, METRICS, PREDICTIONS, RUNS, TABLES, Run, Table, Warehouse
from eagle_spark.tables.schema import sql_time
from eagle_spark.testing.failpoints import reached

# Those that grow by many small commits; others are written in large files, once.
COMPACTED = (PREDICTIONS, RUNS, EPOCHS, METRICS)
SMALL_FILES = 5  # of one partition: fewer are left as they are
TARGET_BYTES = 128 * 2**20
# Iceberg's own limit: files of a run that has not committed yet belong to no table.
ORPHAN_DAYS = 3
LEFT_IN = ("_staging", "_checkpoints")


def maintain(settings: MaintainSettings) -> dict[str, Any]:
    """Run the job and return its figures.

    Readers see the same rows before and after. A table on which a run is working, or was killed a
    short time ago, is not compacted.

    Raises:
        OutputError: when the warehouse cannot be written to.
        AlreadyRunning: when another run of it is at work.
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
        reached("before write")
        branches = sum(_drop_branches(warehouse, table, before) for table in tables)
        # Before the files are compacted: what was published until then has readers still.
        for table in tables:
            warehouse.expire(table, before)
            reached("written")
        reached("audited")
        files = {table.name: _compact(warehouse, table) for table in tables if table in COMPACTED}
        orphans = sum(_remove_orphans(warehouse, table) for table in tables)
        result = {
            "files_before": sum(found for found, _ in files.values()),
            "files_after": sum(left for _, left in files.values()),
            "files": {name: list(counts) for name, counts in files.items()},
            "branches_dropped": branches,
            "orphans_removed": orphans,
            "staging_removed": sum(_sweep(join(place, name), before) for name in LEFT_IN),
            "run_id": run.run_id,
            "seconds": run.seconds,
        }
        warehouse.record_run(run, result)
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
        reached("publishing")
    return before, _count_files(warehouse, table)


def _count_files(warehouse: Warehouse, table: Table) -> int:
    ((count,),) = warehouse.spark.sql(f"SELECT count(*) FROM {table.full_name}.files").collect()
    return int(count)


def _drop_branches(warehouse: Warehouse, table: Table, before: datetime) -> int:
    """Drop what killed runs left and nobody went on with; one that is `main` was just made."""
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
    found = warehouse.spark.sql(
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{table.full_name}', "
        f"older_than => {sql_time(before)})"
    )
    return found.count()


def _sweep(folder: str, before: datetime) -> int:
    """Remove what killed runs left in the folder, each under a name of its own; return how many."""
    storage, place = locate(folder)
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
    """Return the files; a run that ends in the meantime takes its own away."""
    for _ in range(3):
        with suppress(InputError):
            return list(list_folder(folder))
    return []
