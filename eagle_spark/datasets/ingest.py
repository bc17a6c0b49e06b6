"""The preprocess job: a labelled folder becomes rows of `images` and `rejects`."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.datasets.decode_worker import stage_decoded
from eagle_spark.datasets.layout import WANTED, Layout, find_layout
from eagle_spark.datasets.leakage import FACTS, audit_splits, patients_of
from eagle_spark.datasets.matching import Candidate, match
from eagle_spark.datasets.split import (
    SPLITS,
    assign_splits,
    conflicting_labels,
    group_images,
    parse_fractions,
)
from eagle_spark.datasets.split_file import SplitFile, read_split_file
from eagle_spark.datasets.workbook import MAX_WORKBOOK_BYTES, read_workbook
from eagle_spark.errors import OutputError, Reason, TooManyFailures, UnbalancedRun
from eagle_spark.io import FileEntry, absolute_uri, join, list_folder, locate
from eagle_spark.settings import PreprocessSettings
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, REJECTS, Run, Warehouse
from eagle_spark.testing.failpoints import reached

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

MAX_WARNINGS = 20
REJECT_COLUMNS = ("path", "label", "source", "reason", "detail")
Reject = tuple[str, str, str, str, str]

# What the driver has to know of each image to split the set and to see what changed.
_FACTS = ("path", "label", "patient_id", "source", "image_id", "perceptual_hash", "detail")


def preprocess(settings: PreprocessSettings) -> dict[str, Any]:
    """Run the job and return its figures.

    Raises:
        InputError: when the folder, a workbook or the split file cannot be read as one.
        LeakingSplits: when patients, copies or near duplicates would stand in several splits.
        OutputError: when the warehouse is not writable or holds images of another size.
        TooManyFailures: when more than `max_failure_rate` of the listed entries are rejected.
    """
    run = Run.begin("preprocess", settings)
    fractions = parse_fractions(settings.split)
    chosen = read_split_file(settings.split_file) if settings.split_file else None
    root = absolute_uri(settings.input)
    layout = read_layout(root, list_folder(root))
    candidates = candidates_of(layout, settings.source, _last_part(root))
    with open_session("preprocess", settings.warehouse) as spark:
        staging = join(absolute_uri(settings.warehouse), "cxr", "_staging", run.run_id)
        try:
            left_out = sum(layout.left_out.values())
            return _preprocess(spark, run, candidates, left_out, chosen or fractions, staging)
        finally:
            storage, path = locate(staging)
            storage.delete(path)


def list_candidates(root: str, source: str | None) -> list[Candidate]:
    """Return every entry of the folder, matched with its workbook row and mask; none is opened."""
    root = absolute_uri(root)
    return candidates_of(read_layout(root, list_folder(root)), source, _last_part(root))


def candidates_of(layout: Layout, source: str | None, default: str) -> list[Candidate]:
    """Do so for a layout; `default` is the source where the workbook has none."""
    rows = {}
    for workbook in layout.workbooks:
        storage, path = locate(workbook.uri)
        rows[workbook.uri] = read_workbook(storage.read(path, MAX_WORKBOOK_BYTES + 1), workbook.uri)
    return [
        replace(found, source=source or found.source or default) for found in match(layout, rows)
    ]


def read_layout(root: str, entries: Iterable[FileEntry]) -> Layout:
    """Return the layout of a listing; name on standard error what of it is not used."""
    layout = find_layout(root, entries)
    for place, count in list(layout.left_out.items())[:MAX_WARNINGS]:
        print(
            f"warning: {f'{root}/{place}'!r} is not used (files: {count}); wanted {WANTED}",
            file=sys.stderr,
        )
    if (more := len(layout.left_out) - MAX_WARNINGS) > 0:
        print(f"warning: {more} further folders and tables are not used", file=sys.stderr)
    return layout


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1] or uri


def _preprocess(
    spark: SparkSession,
    run: Run,
    candidates: list[Candidate],
    left_out: int,
    rule: SplitFile | tuple[float, float, float],
    staging: str,
) -> dict[str, Any]:
    settings: PreprocessSettings = run.settings
    warehouse = Warehouse(spark)
    warehouse.ensure(IMAGES)
    warehouse.ensure(REJECTS)
    _check_size(warehouse.read(IMAGES), settings.size)
    present = _facts(warehouse.read(IMAGES))

    reached("before write")
    takeable = [found for found in candidates if found.reason is None]
    random.Random(settings.seed).shuffle(takeable)  # noqa: S311  # classes mixed in every file
    # Staged: pixels are decoded once, and written to the table once every split is known.
    with watch_tasks(spark, "decode", len(takeable)):
        decoded, broken = stage_decoded(
            spark, takeable, settings.size, staging, settings.keep_patient_id
        )
    found = _facts(decoded)
    others = present[~present["path"].isin(found["path"])]
    conflict = _label_conflicts(found, others)
    rejects = _rejects(candidates, broken, found[conflict])
    found = found[~conflict].reset_index(drop=True)
    _check_sums(len(candidates), len(found), len(rejects), settings.max_failure_rate)

    if isinstance(rule, SplitFile):
        splits = [*rule.assign(list(found["path"]), list(found["patient_id"])), *others["split"]]
    else:
        splits = _splits(found, others, present, rule, settings.seed)
    found["split"] = splits[: len(found)]
    moved = others.assign(to=splits[len(found) :]).query("split != to")
    changed = _changed(found, present)
    # A file that was taken before and is rejected now must not stay as it was.
    gone = {*changed["path"], *(reject[0] for reject in rejects)} & {*present["path"]}
    # A branch of its own: of two runs at once one is published, and the other says so.
    branch = run.run_id.replace("-", "_")
    try:
        warehouse.open_branch(IMAGES, branch)
        warehouse.remove_paths(IMAGES, sorted(gone), branch)
        for split, paths in moved.groupby("to")["path"]:
            warehouse.update_paths(IMAGES, list(paths), {"split": f"'{split}'"}, branch)
        with watch_tasks(spark, "write", len(changed)):
            _write_images(warehouse, run, decoded, changed, branch)
        reached("written")
        audited = _audit(warehouse, len(present) - len(gone) + len(changed), branch, settings)
        _write_rejects(warehouse, run, rejects, branch)
        reached("audited")
        snapshot = warehouse.publish(IMAGES, branch)
        warehouse.publish(REJECTS, branch)
    finally:
        for table in (IMAGES, REJECTS):
            warehouse.drop_branch(table, branch)

    with_row = {c.uri for c in candidates if c.has_metadata}
    result = {
        "listed": len(candidates),
        "accepted": len(found),
        "rejected": len(rejects),
        "left_out": left_out,
        "by_class": _counts(found["label"]),
        "by_split": {split: int((found["split"] == split).sum()) for split in SPLITS},
        "by_reason": _counts(reject[3] for reject in rejects),
        "masks": int((found["mask_hash"] != 0).sum()),
        "without_metadata": sum(path not in with_row for path in found["path"]),
        "new_or_changed": len(changed),
        "audited": audited,
        "snapshot_id": snapshot,
        "run_id": run.run_id,
        "seconds": run.seconds,
    }
    warehouse.record_run(run, result, snapshot_id=snapshot)
    return result


def _facts(rows: DataFrame) -> pd.DataFrame:
    """Return what the driver has to know of each image: everything but pixels and mask."""
    from pyspark.sql.functions import col, map_entries, when, xxhash64

    return rows.select(
        *_FACTS,
        *(name for name in ("split",) if name in rows.columns),
        when(col("mask").isNull(), 0).otherwise(xxhash64("mask")).alias("mask_hash"),
        xxhash64(map_entries("metadata")).alias("metadata_hash"),
    ).toPandas()


def _check_size(images: DataFrame, size: int) -> None:
    row = images.selectExpr("octet_length(pixels) AS pixels").first()
    if row and row.pixels != size * size:
        raise OutputError(
            f"--size {size}: the table images holds images of side {math.isqrt(row.pixels)}; "
            "use that size, or another warehouse"
        )


def _label_conflicts(found: pd.DataFrame, others: pd.DataFrame) -> Any:
    ids = [*found["image_id"], *others["image_id"]]
    labels = [*found["label"], *others["label"]]
    return conflicting_labels(ids, labels)[: len(found)]


def _rejects(
    candidates: list[Candidate], broken: list[Any], conflicting: pd.DataFrame
) -> list[Reject]:
    unmatched = [
        (c.uri, c.label, str(c.source), str(c.reason), c.detail) for c in candidates if c.reason
    ]
    reason, detail = Reason.CONFLICTING_LABELS.value, "the same bytes stand under another label"
    return [
        *unmatched,
        *((row.path, row.label, row.source, row.reason, row.detail) for row in broken),
        *((row.path, row.label, row.source, reason, detail) for row in conflicting.itertuples()),
    ]


def _check_sums(listed: int, accepted: int, rejected: int, allowed: float) -> None:
    if listed != accepted + rejected:
        raise UnbalancedRun(f"listed {listed}, but accepted {accepted} + rejected {rejected}")
    if listed and rejected / listed > allowed:
        raise TooManyFailures(
            f"{rejected} of {listed} entries rejected, more than --max-failure-rate {allowed}; "
            "nothing was published"
        )


def _splits(
    found: pd.DataFrame,
    others: pd.DataFrame,
    present: pd.DataFrame,
    fractions: tuple[float, float, float],
    seed: int,
) -> list[str]:
    """Return the splits of the found rows, then of the others that the table holds.

    What stands in the table keeps its split, unless a new image ties two of its groups together.
    """
    before = dict(zip(present["path"], present["split"], strict=True))

    def column(name: str) -> list[Any]:
        return [*found[name], *others[name]]

    patients = patients_of(column("source"), column("patient_id"))
    ids = column("image_id")
    groups = group_images(patients, ids, column("perceptual_hash"))
    fixed = [before.get(path) for path in column("path")]
    # Each class of each source is spread over the splits on its own.
    strata = [
        f"{source}/{label}" for source, label in zip(column("source"), column("label"), strict=True)
    ]
    return assign_splits(groups, strata, ids, fractions, seed, fixed=fixed)


def _changed(found: pd.DataFrame, present: pd.DataFrame) -> pd.DataFrame:
    """Return the found rows that the table does not hold exactly so."""
    keys = ["path", "label", "patient_id", "source", "image_id", "split"]
    keys += ["mask_hash", "metadata_hash", "detail"]
    known = set(present[keys].itertuples(index=False, name=None))
    new = [row not in known for row in found[keys].itertuples(index=False, name=None)]
    return found[np.array(new, bool)]


def _write_images(
    warehouse: Warehouse, run: Run, decoded: DataFrame, changed: pd.DataFrame, branch: str
) -> None:
    from pyspark.sql.functions import broadcast, lit

    if changed.empty:
        return
    spark = warehouse.spark
    chosen = spark.createDataFrame(pa.Table.from_pandas(changed[["path", "split"]]))
    rows = (
        decoded.join(broadcast(chosen), "path")
        .withColumn("ingested_at", lit(run.started))
        .select(*(column.name for column in IMAGES.columns))
    )
    warehouse.append(IMAGES, rows, branch)


def _audit(warehouse: Warehouse, wanted: int, branch: str, settings: PreprocessSettings) -> int:
    """Check the table as it would be published; return its rows."""
    images = warehouse.read(IMAGES, branch)
    facts = images.select(*FACTS).toPandas()
    rows, paths = len(facts), facts["path"].nunique()
    if not rows == paths == wanted:
        raise UnbalancedRun(
            f"images: wanted {wanted} rows on the branch; got {rows} rows of {paths} paths"
        )
    remedy = "Nothing was published."
    if settings.split_file:
        remedy += f" Mend --split-file {settings.split_file}"
    audit_splits(facts, "the table images", remedy)
    return rows


def _write_rejects(warehouse: Warehouse, run: Run, rejects: list[Reject], branch: str) -> None:
    """Bring `rejects` up to date: of this input, what is rejected now and nothing else."""
    root = absolute_uri(run.settings.input) + "/"
    rows = warehouse.read(REJECTS).select(*REJECT_COLUMNS).collect()
    present = {(row.path, row.label, row.source, row.reason, row.detail) for row in rows}
    outdated = {row[0] for row in present - set(rejects) if row[0].startswith(root)}
    new = [reject for reject in rejects if reject not in present or reject[0] in outdated]
    warehouse.open_branch(REJECTS, branch)
    warehouse.remove_paths(REJECTS, sorted(outdated), branch)
    if new:
        now = datetime.now(timezone.utc)
        added = [(*reject, run.run_id, now) for reject in new]
        warehouse.append(REJECTS, warehouse.spark.createDataFrame(added, REJECTS.schema()), branch)


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
