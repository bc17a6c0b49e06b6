"""The preprocess job: a labelled folder becomes rows of the table `images`."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.datasets.changes import Changes, Rejection, plan_changes, select_facts
from eagle_spark.datasets.decode_worker import DecodeWorker, decode_candidates
from eagle_spark.datasets.layout import FOLDER_LAYOUT, Layout, parse_layout
from eagle_spark.datasets.leakage import SPLIT_COLUMNS, audit_splits
from eagle_spark.datasets.matching import Candidate, match
from eagle_spark.datasets.split import SPLITS, parse_fractions
from eagle_spark.datasets.split_file import read_split_file
from eagle_spark.datasets.workbook import MAX_WORKBOOK_BYTES, read_workbook
from eagle_spark.errors import AuditError, OutputError
from eagle_spark.io import FileEntry, absolute_uri, join, list_folder, resolve, temporary_folder
from eagle_spark.settings import PreprocessSettings
from eagle_spark.spark.progress import watch_rows
from eagle_spark.spark.session import open_session
from eagle_spark.tables import ACCEPTED, IMAGES, Run, Warehouse
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.definitions import LEGACY_REJECTS
from eagle_spark.testing.failpoints import failpoint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_log = logging.getLogger(__name__)

MAX_WARNINGS = 20
REJECTED = "reason IS NOT NULL"
WORKER_IMPORTS = ("eagle_spark.datasets.decode_worker",)  # what the tasks import
_REJECTION = IMAGES.arrow_schema("path", "label", "source", "reason", "detail")


@dataclass(frozen=True)
class PreprocessResult:
    """The figures of a run: the JSON line of the job, and `result` in the table `runs`.

    `listed == accepted + rejected`.

    Attributes:
        listed: files and workbook rows without a file.
        accepted: accepted files.
        rejected: rejected files and workbook rows.
        left_out: files of the folder outside of the layout.
        by_class: class -> accepted images.
        by_split: split -> accepted images.
        by_reason: `Reason` -> rejected files and workbook rows.
        masks: accepted images with a mask.
        without_metadata: accepted images without a workbook row.
        new_or_changed: accepted images whose rows were written.
        audited: accepted rows of the whole table.
        snapshot_id: published snapshot of the table `images`.
        run_id: id of this run.
        seconds: wall time.
    """

    listed: int
    accepted: int
    rejected: int
    left_out: int
    by_class: Mapping[str, int]
    by_split: Mapping[str, int]
    by_reason: Mapping[str, int]
    masks: int
    without_metadata: int
    new_or_changed: int
    audited: int
    snapshot_id: int | None
    run_id: str
    seconds: float


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
    rule = (
        read_split_file(settings.split_file)
        if settings.split_file
        else parse_fractions(settings.split)
    )
    root = absolute_uri(settings.input)
    layout = read_layout(root, list_folder(root))
    candidates = match_candidates(layout, settings.source, _last_part(root))
    staging = join(absolute_uri(settings.warehouse), "cxr", "_staging", run.run_id)
    with (
        open_session("preprocess", settings.warehouse, imports=WORKER_IMPORTS) as spark,
        temporary_folder(staging),
    ):
        warehouse = Warehouse(spark)
        warehouse.create_or_migrate(IMAGES)
        move_rejects_table(warehouse, run)
        accepted = warehouse.read_images()
        _check_size(accepted, settings.size)
        present = select_facts(accepted)
        failpoint("before write")
        matched = [entry for entry in candidates if entry.reason is None]
        random.Random(settings.seed).shuffle(matched)  # noqa: S311 - mixes the classes in each file
        # Pixels are decoded once, into staging files; they are written when every split is known.
        worker = DecodeWorker(settings.size, staging, settings.keep_patient_id)
        with watch_rows(spark, "decode", len(matched)) as count_rows:
            decoded, broken = decode_candidates(spark, matched, count_rows(worker))
        changes = plan_changes(
            candidates,
            select_facts(decoded),
            broken,
            present,
            rule,
            seed=settings.seed,
            max_failure_rate=settings.max_failure_rate,
        )
        # A branch per run: of two concurrent runs one is published, the other raises.
        with warehouse.branch(IMAGES, run.run_id.replace("-", "_")) as branch:
            write_changes(branch, changes, decoded, run)
            failpoint("written")
            figures = partial(audit_run, run, candidates, layout, changes, len(present))
            result, snapshot = branch.publish(figures, run.record)
        result = replace(result, snapshot_id=snapshot, seconds=run.seconds)
        warehouse.record_run(run.record(result), snapshot)
        return result


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


def write_changes(
    branch: Branch, changes: Changes, decoded: DataFrame, run: Run[PreprocessSettings]
) -> None:
    """Write the changes to a branch of `images`.

    Args:
        branch: of `images`.
        changes: to write.
        decoded: staged rows with pixels, of all decoded images.
        run: this run.
    """
    spark = decoded.sparkSession
    if changes.removed:
        branch.delete_paths(_to_paths(spark, changes.removed), ACCEPTED)
    for split, paths in changes.moved.groupby("to")["path"]:
        branch.update_paths(
            _to_paths(spark, list(paths)), {"split": f"'{split}'"}, f"target.{ACCEPTED}"
        )
    if not changes.written.empty:
        _log.info("writing %d images into the table images", len(changes.written))
        splits = pa.Table.from_pandas(changes.written[["path", "split"]])
        branch.append(add_run(decoded, spark.createDataFrame(splits), run))
    write_rejections(spark, branch, changes.rejections, run)


def add_run(decoded: DataFrame, splits: DataFrame, run: Run[PreprocessSettings]) -> DataFrame:
    """Return rows of `images` for the decoded rows whose `path` has a split."""
    from pyspark.sql.functions import broadcast, lit

    rows = decoded.join(broadcast(splits), "path").withColumns(
        {
            "ingested_at": lit(run.started),
            "status": lit("accepted"),
            "reason": lit(None).cast("string"),
            "run_id": lit(run.run_id),
        }
    )
    return rows.select(*(column.name for column in IMAGES.columns))


def write_rejections(
    spark: SparkSession,
    branch: Branch,
    rejections: Sequence[Rejection],
    run: Run[PreprocessSettings],
) -> None:
    """Replace the rejected rows of this input by `rejections`; unchanged rows stay."""
    root = absolute_uri(run.settings.input) + "/"
    rows = branch.read().where(REJECTED).select(*_REJECTION.names).collect()
    present = {Rejection(**row.asDict()) for row in rows}
    outdated = {
        rejection.path for rejection in present - set(rejections) if rejection.path.startswith(root)
    }
    new = [entry for entry in rejections if entry not in present or entry.path in outdated]
    if outdated:
        branch.delete_paths(_to_paths(spark, sorted(outdated)), REJECTED)
    if new:
        branch.append(rejected_rows(spark, new, run))


def rejected_rows(
    spark: SparkSession, rejections: Sequence[Rejection], run: Run[PreprocessSettings]
) -> DataFrame:
    """Return rows of `images` for rejections."""
    from pyspark.sql.functions import lit

    rows = pa.Table.from_pylist([asdict(entry) for entry in rejections], schema=_REJECTION)
    values = {"status": lit("rejected"), "run_id": lit(run.run_id), "ingested_at": lit(run.started)}
    return complete_rows(spark.createDataFrame(rows).withColumns(values))


def complete_rows(rows: DataFrame) -> DataFrame:
    """Return rows with all columns of `images`; those that are missing are null."""
    from pyspark.sql.functions import lit

    types = {field.name: field.dataType for field in IMAGES.schema().fields}
    missing = {
        name: lit(None).cast(kind) for name, kind in types.items() if name not in rows.columns
    }
    return rows.withColumns(missing).select(*types)


def audit_run(
    run: Run[PreprocessSettings],
    candidates: Sequence[Candidate],
    layout: Layout,
    changes: Changes,
    present: int,
    rows: DataFrame,
) -> PreprocessResult:
    """Check the branch of `images`; return the figures of the run.

    Args:
        run: this run.
        candidates: entries of the folder.
        layout: of the folder.
        changes: that were written.
        present: accepted rows before the run.
        rows: of the branch.

    Raises:
        AuditError: when the number of rows is wrong.
        SplitLeakageError: when related images are in several splits.
    """
    accepted, rejections = changes.accepted, changes.rejections
    facts = rows.where(ACCEPTED).select(*SPLIT_COLUMNS).toPandas()
    wanted = present - len(changes.removed) + len(changes.written)
    if not len(facts) == facts["path"].nunique() == wanted:
        raise AuditError(
            f"images: wanted {wanted} rows on the branch; got {len(facts)} rows of "
            f"{facts['path'].nunique()} paths"
        )
    remedy = "Nothing was published."
    if run.settings.split_file:
        remedy += f" Correct `split_file` {run.settings.split_file}"
    audit_splits(facts, "the table images", remedy)
    with_row = {entry.uri for entry in candidates if entry.has_metadata}
    return PreprocessResult(
        listed=len(candidates),
        accepted=len(accepted),
        rejected=len(rejections),
        left_out=sum(layout.unused_files.values()),
        by_class=_count(accepted["label"]),
        by_split={split: int((accepted["split"] == split).sum()) for split in SPLITS},
        by_reason=_count(rejection.reason for rejection in rejections),
        masks=int((accepted["mask_hash"] != 0).sum()),
        without_metadata=sum(path not in with_row for path in accepted["path"]),
        new_or_changed=len(changes.written),
        audited=len(facts),
        snapshot_id=None,
        run_id=run.run_id,
        seconds=run.seconds,
    )


def move_rejects_table(warehouse: Warehouse, run: Run[PreprocessSettings]) -> None:
    """Move the rows of the table `rejects` of version 0.1 into `images`, then drop the table.

    A path with an accepted row is left out: a run of version 0.1 was killed between its tables.
    """
    spark = warehouse.spark
    if not spark.catalog.tableExists(LEGACY_REJECTS):
        return
    rejects = spark.table(LEGACY_REJECTS).dropDuplicates(_REJECTION.names)
    if not rejects.isEmpty():  # Spark 4.1 fails to plan the append of an empty table
        with warehouse.branch(IMAGES, f"{run.run_id.replace('-', '_')}_rejects") as branch:
            branch.append(select_unmoved_rejects(rejects, branch.read()))
            branch.publish(lambda _: None, lambda _: None)
    spark.sql(f"DROP TABLE {LEGACY_REJECTS}")
    _log.info("moved the rows of the table rejects into images")


def select_unmoved_rejects(rejects: DataFrame, images: DataFrame) -> DataFrame:
    """Return the rows of the table `rejects` of version 0.1 that `images` lacks, as its rows."""
    from pyspark.sql.functions import col, lit

    rows = rejects.join(images.where(ACCEPTED), "path", "left_anti").join(
        images.where(REJECTED), _REJECTION.names, "left_anti"
    )
    return complete_rows(
        rows.withColumns({"ingested_at": col("rejected_at"), "status": lit("rejected")})
    )


def _to_paths(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    return spark.createDataFrame(pa.table({"path": pa.array(paths, pa.string())}))


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
