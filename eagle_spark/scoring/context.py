"""What the steps of a run of `score` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagle_spark.model.bundle import Bundle
from eagle_spark.model.predictor import ModelRef
from eagle_spark.scoring.figures import Rules
from eagle_spark.scoring.predict import Clock
from eagle_spark.scoring.slices import Slice, count_slice
from eagle_spark.settings import ScoreSettings
from eagle_spark.tables import Run, Warehouse
from eagle_spark.tables.data_files import FileLayout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
        parts: the listed files, rows of `LISTING` in its order.
        listing: the same rows.
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
    listing: DataFrame
    layout: FileLayout | None
    clocks: Mapping[str, Clock]

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
        return f"model_id = '{self.bundle.metadata.model_id}'"

    def select(self, rows: DataFrame) -> DataFrame:
        """Return the rows of the model."""
        return rows.where(self.condition)
