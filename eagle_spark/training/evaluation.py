"""What a model is worth on rows of `images`: predicted by Spark, summed up on the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.metrics.evaluation import label_arrays
from eagle_spark.metrics.scores import OVERLAP, overlap_figures
from eagle_spark.model.engines import ENGINES, Shipped
from eagle_spark.model.gate import Outcomes
from eagle_spark.model.novelty import AXES
from eagle_spark.model.review import MASK_MEASURES, mask_measures
from eagle_spark.training.data import stack_pixels

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

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
        *((name, pa.float64()) for name in (*MASK_MEASURES, *AXES)),
    ]
)


@dataclass(frozen=True)
class Evaluator(Shipped):
    """Predicts rows of `images`.

    Attributes:
        others: engines that are asked as well where the CPU can run them.
    """

    others: tuple[str, ...] = ()

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict rows (`_GIVEN`, pixels, mask) by each engine.

        Without a mask there is no `dice`, `iou` and `hausdorff95`. Measures of the mask are of the
        predicted one; of novelty there is the surprise of each density, unless none was fitted yet.
        """
        bundle, first = self.load()
        others = [name for name in self.others if ENGINES[name].runs_here()]
        engines = [first, *(ENGINES[name].load(bundle.path, self.threads) for name in others)]
        for batch, engine in ((batch, engine) for batch in batches for engine in engines):
            pixels = stack_pixels(batch["pixels"].to_pylist(), bundle.size)
            said = engine.predict(pixels)
            measured = [
                overlap_figures(None if mask is None else decode_mask(mask), lungs)
                | mask_measures(lungs)
                for mask, lungs in zip(
                    batch["mask"].to_pylist(), said.mask >= bundle.threshold, strict=True
                )
            ]
            surprise = bundle.novelty.surprise(pixels, said.statistics) if bundle.novelty else {}
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([engine.name] * len(batch), pa.string()),
                    *(batch[name] for name in _GIVEN),
                    pa.array(list(said.label), _OUTCOME.field("probabilities").type),
                    *(
                        pa.array([one[name] for one in measured], pa.float64(), from_pandas=True)
                        for name in (*OVERLAP, *MASK_MEASURES)
                    ),
                    *(
                        pa.array(surprise.get(name, [None] * len(batch)), pa.float64())
                        for name in AXES
                    ),
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


def reference_of(
    outcomes: pd.DataFrame, classes: tuple[str, ...], novelty: NDArray[np.float64]
) -> dict[str, Any]:
    """Return what these images look like to the model: what scoring holds a night against.

    `images`; `label`, the share of each predicted class; `confidence`, `lung_area` and `novelty`,
    each with the `edges` between bins of (about) equally many images, and the `shares` of the bins.
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
        ("lung_area", outcomes["area"].to_numpy(np.float64)),
        ("novelty", novelty),
    ):
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, values, side="right")
        shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
        found[name] = {"edges": edges.tolist(), "shares": shares.tolist()}
    return found
