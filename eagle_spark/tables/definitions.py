"""Every table of the warehouse: its columns, their types and comments. They stand nowhere else."""

from __future__ import annotations

from eagle_spark.tables.schema import Column, Table

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
