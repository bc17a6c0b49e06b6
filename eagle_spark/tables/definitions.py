"""Every table of the warehouse, defined once: columns, types and comments."""

from __future__ import annotations

from eagle_spark.model.review import Flag
from eagle_spark.tables.schema import Column, Table

_DICOM = Column(
    "dicom",
    "STRUCT<patient_id: STRING, view: STRING, study_uid: STRING, sop_uid: STRING, manufacturer: STRING, device: STRING, intent: STRING>",
    "tags of a DICOM file; patient_id is the sha256 of issuer, newline and id unless the run keeps ids; intent is PresentationIntentType; null for other files",
    True,
)

IMAGES = Table(
    "images",
    "Labelled chest X-rays: one row per file or workbook row, accepted for training or rejected with its reason",
    (
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex; null when rejected", True),
        Column("path", "STRING", "URI of the file, or of the workbook with #row=N"),
        Column("label", "STRING", "class: the name of the class folder"),
        Column("patient_id", "STRING", "patient as in the workbook, else as in the DICOM file; null where unknown", True),
        Column("source", "STRING", "collection or hospital of the image"),
        Column("split", "STRING", "train, val or test; all images of a patient and all copies of an image are in one; null when rejected", True),
        Column("width", "INT", "width of the file, pixels; null when rejected", True),
        Column("height", "INT", "height of the file, pixels; null when rejected", True),
        Column("pixels", "BINARY", "grey values 0-255, one byte each, size x size, row by row; null when rejected", True),
        Column("mask", "BINARY", "lungs as a 1-bit PNG, size x size; null without one", True),
        Column("perceptual_hash", "BINARY", "hash of the appearance of the image, for near duplicates; null when rejected", True),
        Column("metadata", "MAP<STRING, STRING>", "other columns of the workbook row; null without one", True),
        Column("ingested_at", "TIMESTAMP", "time of the run that wrote the row, UTC"),
        _DICOM,
        Column("detail", "STRING", "the defect of a rejected file, or the reader's assumptions about an accepted one; null without any", True),
        Column("status", "STRING", "accepted or rejected; null: accepted, by version 0.1", True),
        Column("reason", "STRING", "short name of the reason for the rejection; null when accepted", True),
        Column("run_id", "STRING", "run that wrote the row, see runs; null in rows of version 0.1", True),
    ),
    partitioned_by=("split",),
    properties=(
        # Row groups are what training shuffles and buffers: about 300 images of 224 x 224.
        ("write.parquet.row-group-size-bytes", str(16 * 2**20)),
        # X-rays hardly compress: level 3 costs twice the time for 8 % of the bytes.
        ("write.parquet.compression-level", "1"),
    ),
)  # fmt: skip

LEGACY_REJECTS = "eagle.cxr.rejects"
"""The table of version 0.1 that held the rejected files; `preprocess` moves its rows."""

ACCEPTED = "reason IS NULL"
"""SQL condition on the rows of `images` that can be trained on."""

PREDICTIONS = Table(
    "predictions",
    "Predictions of a model: one row per file and model, scored or rejected with its reason. Research use only",
    (
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex; null where unreadable", True),
        Column("path", "STRING", "URI of the file"),
        Column("file_length", "BIGINT", "bytes of the file"),
        Column("file_modified", "TIMESTAMP", "modification time of the file, UTC"),
        Column("status", "STRING", "scored or rejected"),
        Column("reason", "STRING", "why rejected, short name; null when scored", True),
        Column("detail", "STRING", "the defect of a rejected file, or the reader's assumptions about a scored one; null without any", True),
        Column("label", "STRING", "most probable class; null when rejected", True),
        Column("confidence", "DOUBLE", "probability of that class, 0-1", True),
        Column("probabilities", "MAP<STRING, DOUBLE>", "probability of every class, sum 1", True),
        Column("needs_review", "BOOLEAN", "true if a person has to check the image; null when rejected", True),
        Column("review_reasons", "ARRAY<STRING>", f"{', '.join(Flag)}; empty if no review is needed", True),
        Column("novelty", "DOUBLE", "distance from the training data: 0 usual, above 1 needs review", True),
        Column("mask", "BINARY", "predicted lungs as a 1-bit PNG at the model's size", True),
        Column("lung_area", "DOUBLE", "share of the image that the predicted lungs cover, 0-1", True),
        Column("model_id", "STRING", "model that made the prediction"),
        Column("engine", "STRING", "engine that computed the prediction; null when rejected, or written before this column existed", True),
        Column("run_id", "STRING", "run that wrote the row, see runs"),
        Column("scored_at", "TIMESTAMP", "time, UTC"),
        _DICOM,
    ),
    properties=(
        # The first 16 characters, the default, are equal in all paths of a folder: with the whole
        # text a reader of one folder skips the files of others.
        ("write.metadata.metrics.column.path", "full"),
    ),
)  # fmt: skip

FEATURES = Table(
    "features",
    "Cache of training: features of the frozen backbone, one row per image and augmentation copy",
    (
        Column("path", "STRING", "URI of the file, as in images"),
        Column("image_id", "STRING", "sha256 of the bytes of the file, hex"),
        Column("label", "STRING", "class, as in images"),
        Column("source", "STRING", "collection or hospital, as in images"),
        Column("split", "STRING", "train or val, as in images"),
        Column("copy", "INT", "0 original, 1 mirrored left to right"),
        Column("masked", "BOOLEAN", "whether the image has a mask; taps are stored only for these"),
        Column("backbone", "STRING", "sha256 of the exported backbone, its precision and size with it"),
        Column("bucket", "INT", "rows that are computed and committed together"),
        Column("mask", "BINARY", "lungs as a 1-bit PNG; null without one", True),
        Column("f7", "BINARY", "tap at 1/32 of the size: float16, height x width x channels", True),
        Column("f14", "BINARY", "tap at 1/16", True),
        Column("f28", "BINARY", "tap at 1/8", True),
        Column("f56", "BINARY", "tap at 1/4", True),
        Column("statistics", "BINARY", "input of the class head: float16"),
        Column("computed_at", "TIMESTAMP", "time, UTC"),
    ),
    partitioned_by=("backbone", "split", "masked", "bucket"),
    properties=(
        # About 60 masked rows of size 224 a row group: what training reads at a time.
        ("write.parquet.row-group-size-bytes", str(16 * 2**20)),
        # Numbers of 16 bits hardly pack.
        ("write.parquet.compression-codec", "uncompressed"),
    ),
)  # fmt: skip

RUNS = Table(
    "runs",
    "Job runs: one row per run that published or ended",
    (
        Column("run_id", "STRING", "id of the run"),
        Column("job", "STRING", "preprocess, train, score or maintain"),
        Column("started_at", "TIMESTAMP", "UTC"),
        Column("seconds", "DOUBLE", "from start to publication"),
        Column("settings", "STRING", "settings of the job, JSON"),
        Column("result", "STRING", "the job's figures, JSON"),
        Column(
            "snapshot_id",
            "BIGINT",
            "snapshot that it published (train: that it read); null without one",
            True,
        ),
        Column("model_id", "STRING", "model that it trained or used", True),
        Column("versions", "MAP<STRING, STRING>", "eagle_spark, Python, Spark and libraries"),
        Column(
            "distribution",
            "STRING",
            "score: scored rows by label and by fine bins of confidence, lung_area and novelty, JSON; {} without any; null: of another job, or written before this column existed",
            True,
        ),
    ),
)

EPOCHS = Table(
    "epochs",
    "Training: one row per epoch and rank",
    (
        Column("run_id", "STRING", "run, see runs"),
        Column("model_id", "STRING", "model that was trained"),
        Column("rank", "INT", "training process, from 0"),
        Column("epoch", "INT", "from 1"),
        Column("metrics", "MAP<STRING, DOUBLE>", "losses, accuracy, Dice, seconds, images/s, CPU, RAM"),
    ),
)  # fmt: skip

METRICS = Table(
    "metrics",
    "Metrics of models on labelled images that they were not trained on: one row per metric",
    (
        Column("run_id", "STRING", "run that computed it, see runs"),
        Column("model_id", "STRING", "model that was evaluated"),
        Column("split", "STRING", "val or test, as in images; left_out: leave-one-source-out, by a class head trained without the source"),
        Column("source", "STRING", "collection or hospital, as in images; all: over all sources"),
        Column("label", "STRING", "class, as in images; all: over all classes"),
        Column("name", "STRING", "accuracy, balanced_accuracy, ece, dice, iou, hausdorff95 (pixels); of a class recall, precision, f1, auroc, predicted:<class> (images)"),
        Column("value", "DOUBLE", "value of the metric"),
        Column("low", "DOUBLE", "lower end of the 95 % bootstrap interval by patient; null without one", True),
        Column("high", "DOUBLE", "upper end of that interval; null without one", True),
        Column("n", "INT", "number of images"),
    ),
)  # fmt: skip

TABLES = (IMAGES, FEATURES, PREDICTIONS, RUNS, EPOCHS, METRICS)
