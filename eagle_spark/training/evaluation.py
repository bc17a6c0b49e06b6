"""What a model is worth on rows of `images`: predicted by Spark, summed up on the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.images.masks import decode_mask
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.engines import ENGINES
from eagle_spark.model.figures import label_arrays
from eagle_spark.model.gate import Outcomes
from eagle_spark.model.metrics import OVERLAP, overlap_figures

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

NEVER_SURE = 1.01  # a confidence that no image reaches
# Of fewer images a share says nothing: the one most sure image, if right, would be 100 % of them.
LEAST_SURE = 10
BINS = 10  # of a distribution that scoring is held against

_GIVEN = ("path", "split", "source", "patient", "label")
_OUTCOME = pa.schema(
    [
        ("engine", pa.string()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("patient", pa.string()),
        ("label", pa.string()),
        ("probabilities", pa.list_(pa.float32())),
        *((name, pa.float64()) for name in OVERLAP),
        ("lung_area", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Evaluator:
    """What every worker needs to predict rows of `images`. Small, picklable.

    Attributes:
        engine: has to run on every worker.
        others: are asked as well where the CPU can run them.
    """

    model: str
    model_id: str
    engine: str
    threads: int
    others: tuple[str, ...] = ()

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict rows (`_GIVEN`, pixels, mask) by each engine.

        Without a mask there is no `dice`, `iou` and `hausdorff95`. Whether an engine has passed its
        gate plays no part: this is what the gate is judged by.
        """
        bundle = open_bundle(self.model, expected_id=self.model_id)
        others = [name for name in self.others if ENGINES[name].runs_here()]
        engines = [ENGINES[name].load(bundle.path, self.threads) for name in (self.engine, *others)]
        for batch, engine in ((batch, engine) for batch in batches for engine in engines):
            pixels = np.frombuffer(b"".join(batch["pixels"].to_pylist()), np.uint8)
            probabilities, found = engine.predict(pixels.reshape(-1, bundle.size, bundle.size))
            overlaps = [
                overlap_figures(
                    None if mask is None else decode_mask(mask), lungs >= bundle.threshold
                )
                for mask, lungs in zip(batch["mask"].to_pylist(), found, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([engine.name] * len(batch), pa.string()),
                    *(batch[name] for name in _GIVEN),
                    pa.array(list(probabilities), _OUTCOME.field("probabilities").type),
                    *(
                        pa.array([one[name] for one in overlaps], pa.float64(), from_pandas=True)
                        for name in OVERLAP
                    ),
                    pa.array([float(np.mean(lungs >= bundle.threshold)) for lungs in found]),
                ],
                schema=_OUTCOME,
            )


def predict_rows(images: DataFrame, evaluator: Evaluator) -> dict[str, pd.DataFrame]:
    """Return engine -> one outcome per row of `images`, in the order of their paths.

    Of `evaluator.others` there are fewer where a worker's CPU cannot run them.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    columns = images.selectExpr(
        *("path", "split", "source", "concat(source, '/', patient_id) AS patient", "label"),
        *("pixels", "mask"),
    )
    spark = images.sparkSession
    shared = columns.repartition(spark.sparkContext.defaultParallelism)
    rows = shared.mapInArrow(evaluator, from_arrow_schema(_OUTCOME)).toPandas()
    return {
        name: rows[rows["engine"] == name].sort_values("path", ignore_index=True)
        for name in (evaluator.engine, *evaluator.others)
    }


def outcomes_of(rows: pd.DataFrame, classes: tuple[str, ...]) -> Outcomes:
    """Return rows of `predict_rows` as the gate takes them."""
    if not len(rows):
        return Outcomes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    labels, probabilities = label_arrays(rows, classes)
    return Outcomes(labels, probabilities.argmax(axis=1), rows["dice"].to_numpy(np.float64))


def reference_of(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what these images look like to the model: what scoring holds a night against.

    `images`; `label`, the share of each predicted class; `confidence` and `lung_area`, each with
    the `edges` between bins of (about) equally many images, and the `shares` of the bins.
    """
    found: dict[str, Any] = {"images": len(outcomes)}
    if not len(outcomes):
        return found
    _, probabilities = label_arrays(outcomes, classes)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(classes))
    found["label"] = dict(zip(classes, (counts / len(outcomes)).tolist(), strict=True))
    confidence = probabilities.max(axis=1).astype(np.float64)
    for name, values in (
        ("confidence", confidence),
        ("lung_area", outcomes["lung_area"].to_numpy(np.float64)),
    ):
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, values, side="right")
        shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
        found[name] = {"edges": edges.tolist(), "shares": shares.tolist()}
    return found


def review_threshold(
    outcomes: pd.DataFrame, classes: tuple[str, ...], wanted: float = 0.98
) -> float:
    """Return the confidence below which a person has to look.

    The lowest confidence such that those images of `outcomes` (the validation split) that reach it
    are right in at least `wanted` of the cases; `NEVER_SURE` where there is none, or fewer than
    `LEAST_SURE` images reach it.
    """
    if not len(outcomes):
        return NEVER_SURE
    labels, probabilities = label_arrays(outcomes, classes)
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    right = (probabilities.argmax(axis=1) == labels)[order]
    reached = np.arange(1, len(right) + 1)
    share = np.cumsum(right) / reached
    last = np.append(ordered[1:] != ordered[:-1], True)  # equally sure images pass together
    enough = np.flatnonzero(last & (share >= wanted) & (reached >= LEAST_SURE))
    return float(ordered[enough[-1]]) if len(enough) else NEVER_SURE
