"""The public functions of `eagle_spark`, for notebooks and for Spark sessions of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from eagle_spark.datasets.leakage import SPLIT_COLUMNS, Leak, qualified_patient_ids
from eagle_spark.datasets.leakage import find_leaks as _find_leaks
from eagle_spark.datasets.split import assign_splits as _assign_splits
from eagle_spark.datasets.split import group_images
from eagle_spark.errors import ImageRejectedError, InputError
from eagle_spark.imaging.decode import DecodedImage, decode_image
from eagle_spark.io.archives import Archives
from eagle_spark.metrics.evaluation import Metrics, summarise
from eagle_spark.model.predictor import Model, load_model
from eagle_spark.scoring.listing import expand_entry, list_images, to_table
from eagle_spark.scoring.monitor import make_reference, measure_drift
from eagle_spark.scoring.predict import prediction_columns, read_listed
from eagle_spark.spark.batches import map_batches, tasks_for
from eagle_spark.spark.session import DEFAULT_CONF
from eagle_spark.tables import PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame, SparkSession

__all__ = [
    "assign_splits",
    "drift",
    "evaluate",
    "find_leaks",
    "load_model",
    "predict_udf",
    "read_image",
    "read_images",
    "register_udf",
    "score",
]

UDF_FIELDS = (
    *("status", "label", "confidence", "probabilities", "needs_review", "review_reasons"),
    *("novelty", "mask", "lung_area", "reason", "detail", "image_id", "dicom"),
)
"""Fields of the struct that `predict_udf` returns; columns of the table `predictions`."""

MAX_CONTENT_BYTES = 32 * 2**20  # of files in one Arrow batch
_ROWS_PER_BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"
_SPARK_DEFAULT_ROWS = "10000"
_CONTENTS = pa.schema([("path", pa.string()), ("content", pa.binary())])


def read_image(data: bytes, size: int = 224) -> DecodedImage:
    """Decode an X-ray as every job does.

    Args:
        data: a whole PNG, JPEG, BMP, TIFF or DICOM file.
        size: pixels per side.

    Returns:
        `pixels`, `(size, size)` uint8 and read-only; `width` and `height` of the file; the tags
        `dicom` of a DICOM file; `detail`, the reader's assumptions about an ambiguous file.

    Raises:
        ImageRejectedError: with the reason, where the file cannot be used.

    Example::

        with open("chest.png", "rb") as file:
            read_image(file.read()).pixels.mean()
    """
    return decode_image(data, size)


def read_images(spark: SparkSession, uri: str) -> DataFrame:
    """Return the files of a folder or of an archive, with the members of archives in the folder.

    Args:
        spark: any session.
        uri: folder, or one zip or tar archive.

    Returns:
        `path` STRING and `content` BINARY; `content` is null where a file cannot be read.

    Raises:
        InputError: when there is no such folder.

    Example::

        read_images(spark, "hdfs:///ward/").count()
    """
    rows = [row for entry in list_images(uri) for row in expand_entry(entry)]
    files = spark.createDataFrame(to_table(rows))
    files = files.repartition(tasks_for(spark, len(rows)))
    return map_batches(files, _read_contents, _CONTENTS)


def _read_contents(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, str | bytes | None]] = []
    size = 0
    with Archives() as archives:
        for batch in batches:
            for file in batch.to_pylist():
                try:
                    content = read_listed(file, archives)
                except ImageRejectedError:
                    content = None
                rows.append({"path": file["path"], "content": content})
                size += len(content or b"")
                if size > MAX_CONTENT_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schema=_CONTENTS)
                    rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=_CONTENTS)


def predict_udf(model: Model, *, keep_patient_id: bool = False) -> Callable[..., Column]:
    """Return a pandas UDF from a column of file contents to a struct of `UDF_FIELDS`.

    A broken image is `rejected` with a reason; no image raises. Each worker loads the model once.
    If the active session has Spark's default of 10,000 rows per Arrow batch, gigabytes of images,
    it is set to 64 rows.

    Args:
        model: its folder has to be readable on every worker.
        keep_patient_id: keep DICOM's PatientID as it is, not its hash.

    Returns:
        A function from a column, or its name, to a column.

    Example::

        images = read_images(spark, "hdfs:///ward/")
        predict = predict_udf(load_model("hdfs:///models/cxr"))
        images.select("path", predict("content").alias("p")).select("path", "p.*")
    """
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.functions import pandas_udf

    session = SparkSession.getActiveSession()
    if session and session.conf.get(_ROWS_PER_BATCH) == _SPARK_DEFAULT_ROWS:
        session.conf.set(_ROWS_PER_BATCH, DEFAULT_CONF[_ROWS_PER_BATCH])
    ref = model.ref

    def predict(contents: Iterator[pd.Series[bytes]]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        loaded = ref.load()
        for series in contents:
            predictions = loaded.predict_contents(
                (None if content is None else bytes(content) for content in series),
                keep_patient_id=keep_patient_id,
            )
            rows = [
                # Arrow takes the pairs of a map, pandas takes a mapping.
                {**prediction_columns(one), "probabilities": one.probabilities or None}
                for one in predictions
            ]
            yield pd.DataFrame(
                [[row[name] for name in UDF_FIELDS] for row in rows], columns=list(UDF_FIELDS)
            )

    # Spark derives the kind of a UDF from its annotations, which are strings in this module.
    predict.__annotations__ = _udf_annotations()
    create = cast("Callable[..., Callable[..., Column]]", pandas_udf)
    return create(predict, PREDICTIONS.schema(*UDF_FIELDS))


def _udf_annotations() -> dict[str, object]:
    import pandas as pd

    return {"contents": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}


def register_udf(spark: SparkSession, model: Model, name: str = "eagle_predict") -> None:
    """Register `predict_udf` as a function of SQL.

    Args:
        spark: session.
        model: as for `predict_udf`.
        name: of the function.

    Example::

        register_udf(spark, model, "eagle_predict")
        spark.sql("SELECT path, eagle_predict(content).label FROM ward")
    """
    spark.udf.register(name, predict_udf(model))


def score(images: DataFrame, model: Model) -> DataFrame:
    """Return the predictions for images, with the columns of the table `predictions`.

    Args:
        images: `path` and `content`, as from `read_images` or Spark's `binaryFile`.
        model: as for `predict_udf`.

    Returns:
        One row for each row of `images`. `run_id` is null; `file_modified` too without a column
        `modificationTime`.

    Example::

        score(read_images(spark, "hdfs:///ward/"), model).groupBy("label").count()
    """
    from pyspark.sql.functions import col, current_timestamp, lit, octet_length, when

    modified = "modificationTime" in images.columns
    own: dict[str, Column] = {
        "path": col("path"),
        "file_length": octet_length("content").cast("bigint"),
        "file_modified": col("modificationTime") if modified else lit(None).cast("timestamp"),
        "model_id": lit(model.id),
        "engine": when(col("p.status") == "scored", lit(model.engine)),
        "run_id": lit(None).cast("string"),
        "scored_at": current_timestamp(),
    }
    rows = images.withColumn("p", predict_udf(model)("content"))
    return rows.select(
        *(
            own.get(column.name, col(f"p.{column.name}")).alias(column.name)
            for column in PREDICTIONS.columns
        )
    )


def evaluate(predictions: DataFrame, labels: DataFrame) -> Metrics:
    """Return the metrics of predictions on labelled images, with 95 % bootstrap intervals.

    Args:
        predictions: rows as from `score`, or of the table `predictions`; rejected ones are ignored.
        labels: `path` and `label`; optionally `source`, and `patient_id`, over which the intervals
            are drawn. These columns pass through the driver.

    Raises:
        InputError: when a column is missing, or no prediction has a label of the model's classes.

    Example::

        evaluate(score(images, model), spark.table("labels")).accuracy
    """
    from pyspark.sql.functions import col, lit

    _check_columns("predictions", predictions, ("path", "status", "probabilities"))
    _check_columns("labels", labels, ("path", "label"))
    scored = predictions.where("status = 'scored'").select("path", "probabilities")
    truth = labels.select(
        "path",
        "label",
        (col("source") if "source" in labels.columns else lit("all")).alias("source"),
        (col("patient_id") if "patient_id" in labels.columns else lit(None)).alias("patient"),
    )
    rows = scored.join(truth, "path").toPandas()
    classes = sorted({name for row in rows["probabilities"] for name in row})
    rows = rows[rows["label"].isin(classes)].reset_index(drop=True)
    if rows.empty:
        raise InputError(
            "labels: wanted labels of the model's classes "
            f"({', '.join(classes) or 'no image is scored'}); got none for the predictions"
        )
    rows["probabilities"] = [[row[name] for name in classes] for row in rows["probabilities"]]
    known = rows["patient"].notna()
    rows.loc[known, "patient"] = rows["source"] + "/" + rows["patient"].astype(str)
    return summarise(rows.assign(dice=None, iou=None, hausdorff95=None), tuple(classes))


def assign_splits(
    df: DataFrame, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 7
) -> DataFrame:
    """Return the rows with a column `split`; patients and near duplicates stay in one split.

    Args:
        df: `path` (unique), `label`, `source`, `patient_id` (or null), `image_id` and
            `perceptual_hash`, as in the table `images`. These columns pass through the driver.
        fractions: shares of train, val and test.
        seed: draws the order of equal groups.

    Raises:
        InputError: when a column is missing.

    Example::

        assign_splits(spark.table("eagle.cxr.images").where("reason IS NULL"), (0.8, 0.1, 0.1))
    """
    from pyspark.sql.functions import broadcast

    rows = _collect(df, (*SPLIT_COLUMNS[:-1], "label"))
    patients = qualified_patient_ids(rows["source"], rows["patient_id"])
    ids, hashes = rows["image_id"].tolist(), rows["perceptual_hash"].tolist()
    strata = [f"{row.source}/{row.label}" for row in rows.itertuples()]
    groups = group_images(patients, ids, hashes)
    rows["split"] = _assign_splits(groups, strata, ids, fractions, seed)
    splits = df.sparkSession.createDataFrame(pa.Table.from_pandas(rows[["path", "split"]]))
    return df.drop("split").join(broadcast(splits), "path")


def find_leaks(df: DataFrame) -> list[Leak]:
    """Return each image that is in another split than an image it is related to.

    Args:
        df: `path`, `source`, `patient_id`, `image_id`, `perceptual_hash` and `split`, as in the
            table `images`. These columns pass through the driver.

    Raises:
        InputError: when a column is missing.

    Example::

        find_leaks(spark.table("eagle.cxr.images").where("reason IS NULL"))
    """
    rows = _collect(df, SPLIT_COLUMNS)
    return _find_leaks(
        rows["path"].tolist(),
        rows["split"].tolist(),
        qualified_patient_ids(rows["source"], rows["patient_id"]),
        rows["image_id"].tolist(),
        rows["perceptual_hash"].tolist(),
    )


def drift(reference: Model | DataFrame, predictions: DataFrame) -> dict[str, float]:
    """Return the population stability index of predictions against a reference.

    Args:
        reference: a model, for its validation split; or earlier predictions.
        predictions: rows as from `score`.

    Returns:
        `label`, `confidence`, `lung_area` and `novelty` to their index: 0 where chance explains the
        difference, large above 0.25. Empty where either side has fewer than 100 scored images.

    Example::

        drift(model, score(images, model))
    """
    scored = predictions.where("status = 'scored'")
    if isinstance(reference, Model):
        return measure_drift(scored, reference.bundle.metadata.reference)
    before = reference.where("status = 'scored'")
    classes = sorted(row.label for row in before.select("label").distinct().collect())
    return measure_drift(scored, make_reference(before, classes))


def _collect(df: DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    _check_columns("df", df, columns)
    return df.select(*columns).toPandas()


def _check_columns(name: str, df: DataFrame, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in df.columns]:
        raise InputError(
            f"{name}: wanted the columns {', '.join(columns)}; {', '.join(missing)} missing"
        )
