"""What the steps of a run of `score` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from eagle_spark.io import absolute_uri, join
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.model.predictor import ModelRef
from eagle_spark.scoring.compare import Retry
from eagle_spark.scoring.figures import Rules
from eagle_spark.scoring.listing import list_images, read_listing
from eagle_spark.scoring.predict import Clock
from eagle_spark.scoring.slices import Slice, count_slice
from eagle_spark.settings import ScoreSettings
from eagle_spark.tables import Run, Warehouse
from eagle_spark.tables.data_files import FileLayout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def open_inputs(settings: ScoreSettings) -> tuple[Bundle, str]:
    """Open the model and check the folder of images, before Spark starts.

    Returns:
        The model folder, and the name of the engine.

    Raises:
        ModelError: when the model folder is incomplete or altered, or has no such engine.
        InputError: when the folder of images cannot be listed.
    """
    bundle = open_bundle(settings.model)
    engine = choose_engine(bundle, settings.engine)
    next(list_images(settings.images), None)
    return bundle, engine


def model_condition(model_id: str) -> str:
    """Return the SQL condition on the rows of a model."""
    return f"model_id = '{model_id}'"


def select_retry(settings: ScoreSettings) -> Retry:
    """Return the rejected rows that a run computes again."""
    return "rejected" if settings.retry_rejected else "transient"


def name_branch(model_id: str, images: str) -> str:
    """Return the name of the branch of a model and a folder.

    A run resumes the branch of this name that a killed run left.
    """
    folder = sha256(absolute_uri(images).encode()).hexdigest()
    return f"score_{model_id[:16]}_{folder[:8]}"


def name_staging(warehouse: str) -> str:
    """Return the URI of the folder for leases and temporary folders of a warehouse."""
    return join(absolute_uri(warehouse), "cxr", "_staging")


@dataclass(frozen=True)
class ScoreRun:
    """What the steps of a run share.

    Attributes:
        run: identity and settings.
        spark: session.
        warehouse: of the tables.
        bundle: model folder.
        model: its address for workers.
        staging: URI of a folder of this run.
        parts: the listed files, rows of `LISTING` in its order: all rows of the files of a folder.
        layout: of the data files that workers write; None where Spark writes them.
        clocks: seconds of all tasks by stage.
    """

    run: Run[ScoreSettings]
    spark: SparkSession
    warehouse: Warehouse
    bundle: Bundle
    model: ModelRef
    staging: str
    parts: Slice
    layout: FileLayout | None
    clocks: Mapping[str, Clock]

    @cached_property
    def listing(self) -> DataFrame:
        """The listed files for SQL, which a run without rows of others and masks does not need."""
        return read_listing(self.spark, self.parts[0].uri.rpartition("/")[0])

    @property
    def listed(self) -> int:
        """The number of listed files."""
        return count_slice(self.parts)

    @property
    def rules(self) -> Rules:
        """The rules of the figures of the rows."""
        metadata = self.bundle.metadata
        return Rules(metadata.input.size, metadata.reference.edges)

    @property
    def condition(self) -> str:
        """The SQL condition on the rows of the model."""
        return model_condition(self.bundle.metadata.model_id)

    def select(self, rows: DataFrame) -> DataFrame:
        """Return the rows of the model."""
        return rows.where(self.condition)
