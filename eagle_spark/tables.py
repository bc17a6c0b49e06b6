"""Every table: its columns, and how rows are published.

Schemas are written once, here. Publishing is write-audit-publish: rows go to a branch, sums are
checked there, and then `main` moves to the branch in one step. Readers read `main`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import EagleError, MainMoved, OutputError
from eagle_spark.run import Run as Run
from eagle_spark.run import Stages as Stages
from eagle_spark.run import versions as versions
from eagle_spark.schema import NAMESPACE, Column, change_branch, sql_time
from eagle_spark.schema import DataFile as DataFile
from eagle_spark.schema import Table as Table
from eagle_spark.session import CATALOG
from eagle_spark.steps import reached

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

_DICOM = Column(
    "dicom",
    "STRUCT<patient_id: STRING, view: STRING, study_uid: STRING, sop_uid: STRING, manufacturer: STRING, device: STRING, intent: STRING>",
    "tags of a DICOM file, patient_id as sha256 of issuer, newline and id unless asked for, intent as PresentationIntentType; null for other files",
    True,
)

IMAGES = Table(
    "images",
    "Labelled chest X-rays, ready to train on: one row per accepted file",
    (
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex"),
        Column("path", "STRING", "URI of the file"),
        Column("label", "STRING", "class: the name of the class folder"),
        Column("patient_id", "STRING", "patient as the workbook, else the DICOM file names it; null where unknown", True),
        Column("source", "STRING", "collection or hospital the image comes from"),
        Column("split", "STRING", "train, val or test; no patient and no copy is in two of them"),
        Column("width", "INT", "width of the file as found, pixels"),
        Column("height", "INT", "height of the file as found, pixels"),
        Column("pixels", "BINARY", "grey values 0-255, one byte each, size x size, row by row"),
        Column("mask", "BINARY", "lungs as a 1-bit PNG, size x size; null where there is none", True),
        Column("perceptual_hash", "BINARY", "hash of the look of the image, for near duplicates"),
        Column("metadata", "MAP<STRING, STRING>", "other columns of the workbook row; null without one", True),
        Column("ingested_at", "TIMESTAMP", "when preprocess took the file, UTC"),
        _DICOM,
        Column("detail", "STRING", "what the reader decided where the file lacks or contradicts something; null where nothing", True),
    ),
    partitioned_by="split",
    properties=(
        # Row groups are what training shuffles and buffers: about 300 images of 224 x 224.
        ("write.parquet.row-group-size-bytes", str(16 * 2**20)),
        # X-rays hardly pack: level 3 costs twice the time for 8 % of the bytes.
        ("write.parquet.compression-level", "1"),
    ),
)  # fmt: skip

REJECTS = Table(
    "rejects",
    "What preprocess did not take, and why: one row per file or workbook row",
    (
        Column("path", "STRING", "URI of the file, or of the workbook with #row=N"),
        Column("label", "STRING", "class folder it stands in"),
        Column("source", "STRING", "collection or hospital it comes from"),
        Column("reason", "STRING", "short name of the reason"),
        Column("detail", "STRING", "what was found"),
        Column("run_id", "STRING", "run that rejected it, see runs"),
        Column("rejected_at", "TIMESTAMP", "when, UTC"),
    ),
)

PREDICTIONS = Table(
    "predictions",
    "What a model says of each file, or why it could not: one row per file and model. Research use only",
    (
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex; null where unreadable", True),
        Column("path", "STRING", "URI of the file"),
        Column("file_length", "BIGINT", "bytes of the file"),
        Column("file_modified", "TIMESTAMP", "modification time of the file, UTC"),
        Column("status", "STRING", "scored or rejected"),
        Column("reason", "STRING", "why rejected, short name; null when scored", True),
        Column("detail", "STRING", "what is wrong with a rejected file, or what the reader decided where a scored one lacks or contradicts something", True),
        Column("label", "STRING", "most probable class; null when rejected", True),
        Column("confidence", "DOUBLE", "probability of that class, 0-1", True),
        Column("probabilities", "MAP<STRING, DOUBLE>", "probability of every class, sum 1", True),
        Column("needs_review", "BOOLEAN", "true where a person has to look; null when rejected", True),
        Column("review_reasons", "ARRAY<STRING>", "why: confidence, novelty, mask, for_processing; empty where nobody has to", True),
        Column("novelty", "DOUBLE", "how unlike the training data the image is: 0 usual there, above 1 needs review", True),
        Column("mask", "BINARY", "predicted lungs as a 1-bit PNG at the model's size", True),
        Column("lung_area", "DOUBLE", "share of the image that the predicted lungs cover, 0-1", True),
        Column("model_id", "STRING", "model that was asked"),
        Column("engine", "STRING", "engine that gave the answer; null when rejected, or from before this column", True),
        Column("run_id", "STRING", "run that wrote the row, see runs"),
        Column("scored_at", "TIMESTAMP", "when, UTC"),
        _DICOM,
    ),
)  # fmt: skip

FEATURES = Table(
    "features",
    "Cache of training: what a frozen backbone says of an image, one row per image and augmentation copy",
    (
        Column("path", "STRING", "URI of the file, as in images"),
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex"),
        Column("label", "STRING", "class, as in images"),
        Column("source", "STRING", "collection or hospital, as in images"),
        Column("split", "STRING", "train or val, as in images"),
        Column("copy", "INT", "0 as found, 1 mirrored left to right"),
        Column("masked", "BOOLEAN", "whether there is a mask; the taps are kept for those alone"),
        Column("backbone", "STRING", "sha256 of the exported backbone, its precision and size with it"),
        Column("bucket", "INT", "rows that are computed and committed together"),
        Column("mask", "BINARY", "lungs as a 1-bit PNG, as found; null where there is none", True),
        Column("f7", "BINARY", "tap at 1/32 of the size: float16, height x width x channels", True),
        Column("f14", "BINARY", "tap at 1/16", True),
        Column("f28", "BINARY", "tap at 1/8", True),
        Column("f56", "BINARY", "tap at 1/4", True),
        Column("statistics", "BINARY", "what the class head sees: float16"),
        Column("computed_at", "TIMESTAMP", "when, UTC"),
    ),
    partitioned_by="backbone, split, masked, bucket",
    properties=(
        # About 60 masked rows of size 224 a row group: what training reads at a time.
        ("write.parquet.row-group-size-bytes", str(16 * 2**20)),
        # Numbers of 16 bits hardly pack.
        ("write.parquet.compression-codec", "uncompressed"),
    ),
)  # fmt: skip

RUNS = Table(
    "runs",
    "Job runs: one row per run that reached its end",
    (
        Column("run_id", "STRING", "id of the run"),
        Column("job", "STRING", "preprocess, train, score or maintain"),
        Column("started_at", "TIMESTAMP", "UTC"),
        Column("seconds", "DOUBLE", "from start to publication"),
        Column("settings", "STRING", "what the job was told, JSON"),
        Column("result", "STRING", "the job's figures, JSON"),
        Column("snapshot_id", "BIGINT", "snapshot it wrote (train: read); null where none", True),
        Column("model_id", "STRING", "model it made or used", True),
        Column("versions", "MAP<STRING, STRING>", "eagle_spark, Python, Spark and libraries"),
    ),
)

EPOCHS = Table(
    "epochs",
    "Training: one row per epoch and rank",
    (
        Column("run_id", "STRING", "run, see runs"),
        Column("model_id", "STRING", "model that came of it"),
        Column("rank", "INT", "training process, from 0"),
        Column("epoch", "INT", "from 1"),
        Column("metrics", "MAP<STRING, DOUBLE>", "losses, accuracy, Dice, seconds, images/s, CPU, RAM"),
    ),
)  # fmt: skip

METRICS = Table(
    "metrics",
    "What models are worth on labelled images that they were not trained on: one row per figure",
    (
        Column("run_id", "STRING", "run that measured it, see runs"),
        Column("model_id", "STRING", "model that was measured"),
        Column("split", "STRING", "val or test, as in images; left_out: of a class head that was trained without the source"),
        Column("source", "STRING", "collection or hospital, as in images; all for all of them"),
        Column("label", "STRING", "class, as in images; all for all of them"),
        Column("name", "STRING", "accuracy, balanced_accuracy, ece, dice, iou, hausdorff95 (pixels); of a class recall, precision, f1, auroc, predicted:<class> (images)"),
        Column("value", "DOUBLE", "the figure"),
        Column("low", "DOUBLE", "lower end of its 95 % bootstrap interval by patient; null where none", True),
        Column("high", "DOUBLE", "upper end, likewise", True),
        Column("n", "INT", "images that it is over"),
    ),
)  # fmt: skip

TABLES = (IMAGES, REJECTS, FEATURES, PREDICTIONS, RUNS, EPOCHS, METRICS)


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
