"""Expected accuracy at a new hospital: each source predicted by a class head trained without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.leakage import qualified_patient_ids
from eagle_spark.datasets.split import group_images
from eagle_spark.metrics.evaluation import Metrics, summarise
from eagle_spark.metrics.scores import OVERLAP_METRICS
from eagle_spark.model.engines import cap_threads
from eagle_spark.model.network import build_heads
from eagle_spark.training.feed import LABEL_COLUMNS, Row, Samples, read_lane, to_samples
from eagle_spark.training.heads import (
    LabelHead,
    LabelTrainer,
    StandardisedRows,
    Vector,
    count_label_steps,
    fit_temperature,
)
from eagle_spark.training.plan import Lane, TrainPlan, class_source_weights

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_COLUMNS = ("path", "copy", "statistics", *LABEL_COLUMNS)


def leave_sources_out(
    spark: SparkSession,
    plan: TrainPlan,
    counts: Mapping[tuple[str, str], int],
    images: pd.DataFrame,
) -> Metrics:
    """Return the metrics over all sources and of each; one task per source.

    A source's rows of the train and val split are predicted by a head that is trained like the
    model's own, but without these rows and without their patients, copies and near duplicates in
    other sources. Sources without which fewer than two classes remain are skipped.

    Args:
        plan: its rows are of the table `features`.
        counts: (source, class) -> images of the train split.
        images: `path`, `source`, `patient_id`, `image_id` and `perceptual_hash` of all images.
    """
    import pandas as pd

    patients = qualified_patient_ids(images["source"], images["patient_id"])
    ids, hashes = images["image_id"].tolist(), images["perceptual_hash"].tolist()
    images = images.assign(group=group_images(patients, ids, hashes))
    folds = []
    for source, rows in images.groupby("source", sort=True):
        others = {key: count for key, count in counts.items() if key[0] != source}
        if len({label for _, label in others}) > 1:
            excluded = images[images["group"].isin(rows["group"])]["path"]
            weights = class_source_weights(others)
            folds.append(SourceFold(plan, str(source), frozenset(excluded), weights))
    if not folds:
        return summarise(pd.DataFrame({"source": []}), plan.classes)
    tasks = spark.sparkContext.parallelize(folds, len(folds))
    patient_by_path = dict(zip(images["path"], patients, strict=True))
    outcomes = pd.concat(
        pd.DataFrame(predictions).assign(source=fold.source)
        for fold, predictions in zip(folds, tasks.map(SourceFold.predict).collect(), strict=True)
    )
    outcomes["patient"] = outcomes["path"].map(patient_by_path)
    return summarise(outcomes.assign(**dict.fromkeys(OVERLAP_METRICS, np.nan)), plan.classes)


class HeldOutPredictions(TypedDict):
    """Predictions of the images of a held-out source."""

    path: list[str]
    label: list[str]
    probabilities: list[NDArray[np.float64]]


@dataclass(frozen=True)
class SourceFold:
    """One held-out source, and the inputs of its head. Small, picklable.

    Attributes:
        excluded: paths of the images that its head is not trained on.
        weights: (source, class) -> weight of a row of another source.
    """

    plan: TrainPlan
    source: str
    excluded: frozenset[str]
    weights: Mapping[tuple[str, str], float]

    def predict(self) -> HeldOutPredictions:
        """Fit the head, and predict the source's images."""
        plan = self.plan

        def is_training(row: Row) -> bool:
            return row["path"] not in self.excluded

        def is_held_out(row: Row) -> bool:
            return row["source"] == self.source and not row["copy"]

        training = self._read(plan.training.labels, is_training)[0]
        if len(np.unique(training.labels)) < 2:
            return {"path": [], "label": [], "probabilities": []}
        validation = self._read(plan.validation.labels, is_training)[0]
        head = train_label_head(training, validation, plan)
        rows, paths = self._read((*plan.training.labels, *plan.validation.labels), is_held_out)
        logits = head.logits(rows.statistics)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return {
            "path": paths,
            "label": [plan.classes[label] for label in rows.labels],
            "probabilities": list(exponentials / exponentials.sum(axis=1, keepdims=True)),
        }

    def _read(
        self, lanes: Sequence[Lane], predicate: Callable[[Row], bool]
    ) -> tuple[Samples, list[str]]:
        """Return the samples that the predicate holds for, and their paths."""
        paths: list[str] = []

        def rows() -> Iterator[Row]:
            for row in chain.from_iterable(read_lane(lane, _COLUMNS) for lane in lanes):
                if predicate(row):
                    paths.append(row["path"])
                    yield row

        return to_samples(rows(), self.plan.classes, self.weights), paths


def train_label_head(training: Samples, validation: Samples, plan: TrainPlan) -> LabelHead:
    """Train a class head in this process alone, and calibrate it on the validation rows."""
    import tensorflow as tf

    cap_threads(plan.threads)

    heads = build_heads(plan.classes, plan.size, plan.seed)
    steps = count_label_steps(len(training.labels))
    trainer = LabelTrainer(heads, steps, tf.distribute.get_strategy())
    rows = StandardisedRows(training, 0, 1, _alone, plan.seed)
    trainer.advance(rows, 1.0)
    head = rows.unstandardise(trainer.head())
    return head.with_temperature(fit_temperature(head, validation, _alone))


def _alone(vector: Vector) -> Vector:
    """The sum over one rank."""
    return vector
