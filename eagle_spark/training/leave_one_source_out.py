"""What to expect at a new hospital: each source asked of a class head that never saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from eagle_spark.datasets.leakage import patients_of
from eagle_spark.datasets.split import group_images
from eagle_spark.metrics.evaluation import summarise
from eagle_spark.metrics.scores import OVERLAP
from eagle_spark.training.feed import LABEL_COLUMNS, Labelled, Row, label_rows, lane_rows
from eagle_spark.training.heads import LabelFit
from eagle_spark.training.plan import Lane, TrainPlan, balance

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_COLUMNS = ("path", "copy", "statistics", *LABEL_COLUMNS)


def leave_sources_out(
    spark: SparkSession,
    plan: TrainPlan,
    groups: Mapping[tuple[str, str], int],
    facts: pd.DataFrame,
) -> dict[str, Any]:
    """Return the figures, see `summarise`, of all sources and of each; one task for each source.

    A source's rows of the train and val split are asked of a head that was trained as the model's
    own, but without them, and without what belongs to them in other sources: copies and near
    duplicates. Sources without which fewer than two classes are left are passed over.

    Args:
        plan: its rows are of the table `features`.
        groups: (source, class) -> images of the train split.
        facts: `path`, `source`, `patient_id`, `image_id` and `perceptual_hash` of all images.
    """
    import pandas as pd

    patients = patients_of(facts["source"], facts["patient_id"])
    ids, hashes = facts["image_id"].tolist(), facts["perceptual_hash"].tolist()
    facts = facts.assign(group=group_images(patients, ids, hashes))
    asked = []
    for source, own in facts.groupby("source", sort=True):
        others = {key: count for key, count in groups.items() if key[0] != source}
        if len({label for _, label in others}) > 1:
            tied = facts[facts["group"].isin(own["group"])]["path"]
            asked.append(LeftOut(plan, str(source), frozenset(tied), balance(others)))
    if not asked:
        return summarise(pd.DataFrame({"source": []}), plan.classes)
    shared = spark.sparkContext.parallelize(asked, len(asked))
    of_path = dict(zip(facts["path"], patients, strict=True))
    rows = pd.concat(
        pd.DataFrame(said).assign(source=one.source)
        for one, said in zip(asked, shared.map(LeftOut.predict).collect(), strict=True)
    )
    rows["patient"] = rows["path"].map(of_path)
    return summarise(rows.assign(**dict.fromkeys(OVERLAP, np.nan)), plan.classes)


@dataclass(frozen=True)
class LeftOut:
    """One source, and what its head is made of. Small, picklable.

    Attributes:
        tied: paths of its images, and of those that belong to them.
        weights: (source, class) -> weight of a row of another source.
    """

    plan: TrainPlan
    source: str
    tied: frozenset[str]
    weights: Mapping[tuple[str, str], float]

    def predict(self) -> dict[str, list[Any]]:
        """Fit the head; return `path`, `label` and `probabilities` of the source's images."""
        plan = self.plan

        def others(row: Row) -> bool:
            return row["path"] not in self.tied

        def own(row: Row) -> bool:
            return row["source"] == self.source and not row["copy"]

        training = self._read(plan.training.labels, others)[0]
        if len(np.unique(training.labels)) < 2:
            return {"path": [], "label": [], "probabilities": []}
        fit = LabelFit(training, len(plan.classes), 0, 1, lambda vector: vector, plan.seed)
        check = self._read(plan.validation.labels, others)[0]
        point, temperature = fit.finish(fit.start(), check)
        rows, paths = self._read((*plan.training.labels, *plan.validation.labels), own)
        logits = fit.head(point).cooled(temperature).logits(rows.statistics)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return {
            "path": paths,
            "label": [plan.classes[label] for label in rows.labels],
            "probabilities": list(shares / shares.sum(axis=1, keepdims=True)),
        }

    def _read(self, lanes: Sequence[Lane], wanted: Callable[[Row], bool]) -> tuple[Labelled, Any]:
        paths: list[str] = []

        def rows() -> Iterator[Row]:
            for row in chain.from_iterable(lane_rows(lane, _COLUMNS) for lane in lanes):
                if wanted(row):
                    paths.append(row["path"])
                    yield row

        return label_rows(rows(), self.plan.classes, self.weights), paths
