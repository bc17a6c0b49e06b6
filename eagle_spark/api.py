"""The public functions of `eagle_spark`, for notebooks and for Spark sessions of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from eagle_spark.datasets.leakage import FACTS, Leak, patients_of
from eagle_spark.datasets.leakage import find_leaks as _find_leaks
from eagle_spark.datasets.split import assign_splits as _assign_splits
from eagle_spark.datasets.split import group_images
from eagle_spark.errors import ImageRejected, InputError
from eagle_spark.imaging.decode import Radiograph, read_radiograph
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io.archives import Archives
from eagle_spark.model.predictor import Model, Prediction
from eagle_spark.scoring.listing import LISTING, list_images, listed_rows
from eagle_spark.scoring.monitor import nights_reference, shift_of
from eagle_spark.scoring.predict import read_listed
from eagle_spark.spark.session import RULES, tasks_for
from eagle_spark.tables import PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame, SparkSession

PREDICTED = (
    *("status", "label", "confidence", "probabilities", "needs_review", "review_reasons"),
    *("novelty", "mask", "lung_area", "reason", "detail", "image_id", "dicom"),
)
"""Fields of the struct that `predict_udf` returns; columns of the table `predictions`."""

CONTENT_BYTES = 32 * 2**20  # of files in one Arrow batch
_ROWS_PER_BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"
_SPARKS_OWN_ROWS = "10000"
_IMAGES = pa.schema([("path", pa.string()), ("content", pa.binary())])


def load_model(uri: str, engine: str = "auto", threads: int | None = None) -> Model:
    """Open a model folder, check its files against their digests and load one of its engines.

    Args:
        uri: local path, `file:///` or `hdfs://` URI.
        engine: `auto` is the fastest that passed the gate of this model and runs here.
        threads: of the engine; None takes all cores that this process may use.

    Raises:
        BundleError: when the folder is no sound model.
        PlatformError: when no engine of it can run here.

    Example::

        model = load_model("hdfs:///models/cxr")
        model.classes
    """
    return Model(uri, engine, threads)


def read_image(data: bytes, size: int = 224) -> Radiograph:
    """Decode an X-ray as every job does.

    Args:
        data: a whole PNG, JPEG, BMP, TIFF or DICOM file.
        size: pixels per side.

    Returns:
        `pixels`, `(size, size)` uint8 and read-only; `width` and `height` of the file; the tags
        `dicom` of a DICOM file; `detail`, what the reader decided where the file lacks something.

    Raises:
        ImageRejected: with the reason, where the file cannot be used.
    """
    return read_radiograph(data, size)


def read_images(spark: SparkSession, uri: str) -> DataFrame:
    """Return the files of a folder, or of an archive, with those in archives below it.

    Args:
        spark: any session.
        uri: folder, or one zip or tar archive.

    Returns:
        `path` STRING and `content` BINARY; `content` is null where a file cannot be read.

    Raises:
        InputError: when there is no such folder.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    rows = [row for entry in list_images(uri) for row in listed_rows(entry)]
    files = spark.createDataFrame(pa.Table.from_pylist(rows, schema=LISTING))
    files = files.repartition(tasks_for(spark, len(rows)))
    return files.mapInArrow(_read_contents, from_arrow_schema(_IMAGES))


def _read_contents(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    held = 0
    with Archives() as archives:
        for batch in batches:
            for file in batch.to_pylist():
                try:
                    content = read_listed(file, archives)
                except ImageRejected:
                    content = None
                rows.append({"path": file["path"], "content": content})
                held += len(content or b"")
                if held > CONTENT_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schema=_IMAGES)
                    rows, held = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=_IMAGES)


def predict_udf(model: Model, *, keep_patient_id: bool = False) -> Any:
    """Return a pandas UDF: a column of file contents to a struct of `PREDICTED`.

    A broken image is `rejected` with a reason; it raises nothing. Each worker loads the model once.
    In the active session Arrow batches are cut to 64 rows, where nobody has set their length:
    10,000 images, Spark's own, are gigabytes.

    Args:
        model: its folder has to be readable on every worker.
        keep_patient_id: take DICOM's PatientID as it is, not its hash.

    Example::

        images = read_images(spark, "hdfs:///ward/")
        predict = predict_udf(load_model("hdfs:///models/cxr"))
        images.select("path", predict("content").alias("p")).select("path", "p.*")
    """
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.functions import pandas_udf

    session = SparkSession.getActiveSession()
    if session and session.conf.get(_ROWS_PER_BATCH) == _SPARKS_OWN_ROWS:
        session.conf.set(_ROWS_PER_BATCH, RULES[_ROWS_PER_BATCH])
    _, address = model.__reduce__()

    def predict(contents: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        import pandas as pd

        loaded = _loaded(*address)
        for series in contents:
            found = loaded.predict_all(
                (None if one is None else bytes(one) for one in series),
                keep_patient_id=keep_patient_id,
            )
            yield pd.DataFrame([_row(one) for one in found], columns=list(PREDICTED))

    # Written out: Spark takes the kind of a UDF from its annotations, which are texts here.
    predict.__annotations__ = _iterators()
    return cast(Any, pandas_udf)(predict, PREDICTIONS.schema(*PREDICTED))


def _iterators() -> dict[str, Any]:
    import pandas as pd

    return {"contents": Iterator[pd.Series], "return": Iterator[pd.DataFrame]}


@lru_cache(maxsize=1)
def _loaded(uri: str, engine: str, threads: int | None, id: str) -> Model:
    return Model(uri, engine, threads or 1, id)


def _row(one: Prediction) -> dict[str, Any]:
    row = {name: value for name, value in asdict(one).items() if name in PREDICTED}
    if one.status == "rejected":
        return row | {"probabilities": None, "review_reasons": None}
    assert one.mask is not None
    return row | {"mask": encode_mask(one.mask), "review_reasons": list(one.review_reasons)}


def register_udf(spark: SparkSession, model: Model, name: str = "eagle_predict") -> None:
    """Make `predict_udf` a function of SQL.

    Example::

        register_udf(spark, model, "eagle_predict")
        spark.sql("SELECT path, eagle_predict(content).label FROM ward")
    """
    spark.udf.register(name, predict_udf(model))


def score(images: DataFrame, model: Model) -> DataFrame:
    """Return the predictions of images, with the columns of the table `predictions`.

    Args:
        images: `path` and `content`, as from `read_images` or Spark's `binaryFile`.
        model: as for `predict_udf`.

    Returns:
        One row for each row of `images`; `run_id` and, without a column `modificationTime`,
        `file_modified` are null.
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


def assign_splits(
    df: DataFrame, fractions: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 7
) -> DataFrame:
    """Return the rows with a column `split`: no patient and no near duplicate is in two of them.

    Args:
        df: `path` (unique), `label`, `source`, `patient_id` (or null), `image_id` and
            `perceptual_hash`, as in the table `images`. These columns pass through the driver.
        fractions: shares of train, val and test.
        seed: draws the order of equal groups.

    Raises:
        InputError: when a column is missing.
    """
    from pyspark.sql.functions import broadcast

    facts = _facts(df, (*FACTS[:-1], "label"))
    patients = patients_of(facts["source"], facts["patient_id"])
    ids, hashes = facts["image_id"].tolist(), facts["perceptual_hash"].tolist()
    strata = [f"{row.source}/{row.label}" for row in facts.itertuples()]
    groups = group_images(patients, ids, hashes)
    facts["split"] = _assign_splits(groups, strata, ids, fractions, seed)
    chosen = df.sparkSession.createDataFrame(pa.Table.from_pandas(facts[["path", "split"]]))
    return df.drop("split").join(broadcast(chosen), "path")


def find_leaks(df: DataFrame) -> list[Leak]:
    """Return each image that stands in another split than an image it belongs to.

    Args:
        df: `path`, `source`, `patient_id`, `image_id`, `perceptual_hash` and `split`, as in the
            table `images`. These columns pass through the driver.

    Raises:
        InputError: when a column is missing.
    """
    facts = _facts(df, FACTS)
    return _find_leaks(
        facts["path"].tolist(),
        facts["split"].tolist(),
        patients_of(facts["source"], facts["patient_id"]),
        facts["image_id"].tolist(),
        facts["perceptual_hash"].tolist(),
    )


def drift(reference: Model | DataFrame, predictions: DataFrame) -> dict[str, float]:
    """Return the population stability index of predictions against a reference.

    Args:
        reference: a model, for its validation split; or earlier predictions.
        predictions: rows as from `score`.

    Returns:
        `label`, `confidence`, `lung_area` and `novelty` to their index: 0 where chance explains the
        difference, large above 0.25. Empty where either side has fewer than 100 scored images.
    """
    scored = predictions.where("status = 'scored'")
    if isinstance(reference, Model):
        expected: Mapping[str, Any] = reference.metadata.get("reference", {})
    else:
        before = reference.where("status = 'scored'")
        classes = [row.label for row in before.select("label").distinct().collect()]
        expected = nights_reference(before, sorted(classes))
    return shift_of(scored, expected) if expected.get("images") else {}


def _facts(df: DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    wanted = list(columns)
    if missing := [name for name in wanted if name not in df.columns]:
        raise InputError(
            f"df: wanted the columns {', '.join(wanted)}; {', '.join(missing)} missing"
        )
    return df.select(*wanted).toPandas()
