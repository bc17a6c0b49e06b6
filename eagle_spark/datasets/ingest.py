"""The preprocess job: a labelled folder becomes rows of the table `images`."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from eagle_spark.datasets.audit import audit_run
from eagle_spark.datasets.changes import no_facts, plan_changes, select_facts
from eagle_spark.datasets.decode_worker import DecodeWorker, decode_candidates
from eagle_spark.datasets.layout import FOLDER_LAYOUT, Layout, parse_layout
from eagle_spark.datasets.legacy_rejects import move_rejects_table
from eagle_spark.datasets.matching import Candidate, match
from eagle_spark.datasets.result import PreprocessResult
from eagle_spark.datasets.split import parse_fractions
from eagle_spark.datasets.split_file import read_split_file
from eagle_spark.datasets.workbook import MAX_WORKBOOK_BYTES, read_workbook
from eagle_spark.datasets.write import IngestRun, write_changes
from eagle_spark.errors import OutputError
from eagle_spark.io import FileEntry, absolute_uri, join, list_folder, resolve, temporary_folder
from eagle_spark.settings import PreprocessSettings
from eagle_spark.spark.progress import watch_rows
from eagle_spark.spark.session import check_warehouse, open_session, start_context
from eagle_spark.spark.tasks import warm_workers
from eagle_spark.tables import IMAGES, Run, StageTimer, Warehouse
from eagle_spark.tables.iceberg import Snapshot
from eagle_spark.tables.writer import choose_layout
from eagle_spark.testing.failpoints import failpoint

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

_log = logging.getLogger(__name__)

MAX_WARNINGS = 20
WORKER_IMPORTS = ("eagle_spark.datasets.decode_worker", "eagle_spark.datasets.write_files")


def preprocess(settings: PreprocessSettings) -> PreprocessResult:
    """Decode a labelled folder, assign splits and publish the rows of `images` in one step.

    Args:
        settings: of the job.

    Returns:
        The figures of the run.

    Raises:
        InputError: when the folder, a workbook or the split file cannot be read.
        SplitLeakageError: when patients, copies or near duplicates are in several splits.
        OutputError: when the warehouse is not writable or holds images of another size.
        FailureRateError: when more than `max_failure_rate` of the listed entries are rejected.

    Example::

        preprocess(PreprocessSettings(input="hdfs:///labelled", warehouse="hdfs:///warehouse"))
    """
    run = Run.begin("preprocess", settings)
    timer = StageTimer(run)
    rule = (
        read_split_file(settings.split_file)
        if settings.split_file
        else parse_fractions(settings.split)
    )
    root = absolute_uri(settings.input)
    layout = read_layout(root, list_folder(root))
    candidates = match_candidates(layout, settings.source, _last_part(root))
    timer.end("list")
    staging = join(absolute_uri(settings.warehouse), "cxr", "_staging", run.run_id)
    check_warehouse(settings.warehouse)
    with (
        start_context("preprocess", imports=WORKER_IMPORTS) as spark_context,
        warm_workers(spark_context, partial(import_module, WORKER_IMPORTS[0])),
        open_session("preprocess", settings.warehouse) as spark,
        temporary_folder(staging),
    ):
        branch_name = run.run_id.replace("-", "_")
        warehouse = Warehouse(spark)
        warehouse.create_or_migrate(IMAGES)
        move_rejects_table(warehouse, f"{branch_name}_rejects")
        context = IngestRun(
            run,
            spark,
            staging,
            choose_layout(settings.writer, warehouse.iceberg(IMAGES), IMAGES),
            *read_present(warehouse, settings.size),
        )
        timer.end("start")
        failpoint("before write")
        matched = [entry for entry in candidates if entry.reason is None]
        random.Random(settings.seed).shuffle(matched)  # noqa: S311 - mixes the classes in each file
        # Pixels are decoded once, into staging files; they are written when every split is known.
        worker = DecodeWorker(settings.size, staging, settings.keep_patient_id)
        with watch_rows(spark, "decode", len(matched)) as count_rows:
            decoded, broken = decode_candidates(spark, matched, count_rows(worker))
        timer.end("decode")
        changes = plan_changes(
            candidates,
            decoded,
            broken,
            context.present,
            rule,
            seed=settings.seed,
            max_failure_rate=settings.max_failure_rate,
        )
        timer.end("split")
        # A branch per run: of two concurrent runs one is published, the other raises.
        with warehouse.branch(IMAGES, branch_name) as branch:
            facts = write_changes(context, branch, changes)
            timer.end("write")
            failpoint("written")
            figures = partial(audit_run, context, timer, candidates, layout, changes, facts)
            result, snapshot = branch.publish(figures, run.record)
        timer.end("publish")
        result = replace(
            result, snapshot_id=snapshot, seconds=run.seconds, stage_seconds=timer.seconds
        )
        warehouse.record_run(run.record(result), snapshot)
        return result


def read_present(warehouse: Warehouse, size: int) -> tuple[Snapshot | None, pd.DataFrame]:
    """Return the present snapshot of `images` and the facts of its accepted rows.

    Raises:
        OutputError: when the images are not of this size.
    """
    head = warehouse.iceberg(IMAGES).head()
    if head is None or head.rows == 0:  # without a query
        return head, no_facts()
    accepted = warehouse.read_images()
    _check_size(accepted, size)
    return head, select_facts(accepted)


def match_candidates(layout: Layout, source: str | None, default: str) -> list[Candidate]:
    """Return the entries of a layout with their workbook rows and masks.

    Args:
        layout: of a labelled folder.
        source: of all entries; None takes the workbook's.
        default: source of entries for which the workbook has none.
    """
    rows = {}
    for workbook in layout.workbooks:
        storage, path = resolve(workbook.uri)
        rows[workbook.uri] = read_workbook(storage.read(path, MAX_WORKBOOK_BYTES + 1), workbook.uri)
    return [
        replace(entry, source=source or entry.source or default) for entry in match(layout, rows)
    ]


def read_layout(root: str, entries: Iterable[FileEntry]) -> Layout:
    """Return the layout of a listing; warn of folders and tables that it does not use."""
    layout = parse_layout(root, entries)
    for place, count in list(layout.unused_files.items())[:MAX_WARNINGS]:
        unused = f"{root}/{place}"
        _log.warning("%r is not used (files: %s); wanted %s", unused, count, FOLDER_LAYOUT)
    if (more := len(layout.unused_files) - MAX_WARNINGS) > 0:
        _log.warning("%s further folders and tables are not used", more)
    return layout


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1] or uri


def _check_size(images: DataFrame, size: int) -> None:
    row = images.selectExpr("octet_length(pixels) AS pixels").first()
    if row and row.pixels != size * size:
        raise OutputError(
            f"`size` {size}: the table images holds images of side {math.isqrt(row.pixels)}; "
            "use that size, or another warehouse"
        )
