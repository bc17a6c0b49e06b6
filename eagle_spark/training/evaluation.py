"""Evaluation of a model on rows of `images`: predictions by Spark, summaries on the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.metrics.drift import Histogram, Reference
from eagle_spark.metrics.evaluation import extract_label_arrays
from eagle_spark.metrics.scores import OVERLAP_METRICS, compute_overlap_metrics
from eagle_spark.model.engines import ENGINES
from eagle_spark.model.gate import Outcomes
from eagle_spark.model.novelty import COMPONENTS
from eagle_spark.model.predictor import ModelRef
from eagle_spark.model.review import MASK_MEASURES, measure_mask
from eagle_spark.spark.batches import map_batches
from eagle_spark.training.data import stack_pixels

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

REFERENCE_BINS = 10  # bins of a reference distribution

_INPUT_COLUMNS = ("path", "split", "source", "patient", "label")
_OUTCOME = pa.schema(
    [
        ("engine", pa.string()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("patient", pa.string()),
        ("label", pa.string()),
        ("probabilities", pa.list_(pa.float32())),
        *((name, pa.float64()) for name in OVERLAP_METRICS),
        *((name, pa.float64()) for name in (*MASK_MEASURES, *COMPONENTS)),
    ]
)


@dataclass(frozen=True)
class Evaluator(ModelRef):
    """Predicts rows of `images`.

    Attributes:
        extra_engines: engines that predict as well where the CPU can run them.
    """

    extra_engines: tuple[str, ...] = ()

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict rows (`_INPUT_COLUMNS`, pixels, mask) by each engine.

        `dice`, `iou` and `hausdorff95` are null without a mask. Mask measures describe the
        predicted mask. Novelty columns hold the negative log density of each component, null
        before densities are fitted.
        """
        model = self.load()
        bundle = model.bundle
        engines = {self.engine: model.compute_outputs}
        for name in self.extra_engines:
            if ENGINES[name].runs_here():
                engines[name] = ENGINES[name].load(bundle.path, self.threads).predict
        for batch, engine in ((batch, engine) for batch in batches for engine in engines):
            pixels = stack_pixels(batch["pixels"].to_pylist(), bundle.metadata.input.size)
            outputs = engines[engine](pixels)
            measures = [
                compute_overlap_metrics(None if mask is None else decode_mask(mask), lungs)
                | measure_mask(lungs)
                for mask, lungs in zip(
                    batch["mask"].to_pylist(),
                    outputs.mask >= bundle.metadata.mask_threshold,
                    strict=True,
                )
            ]
            nll = (
                bundle.novelty.negative_log_density(pixels, outputs.statistics)
                if bundle.novelty
                else {}
            )
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([engine] * len(batch), pa.string()),
                    *(batch[name] for name in _INPUT_COLUMNS),
                    pa.array(list(outputs.label), _OUTCOME.field("probabilities").type),
                    *(
                        pa.array([row[name] for row in measures], pa.float64(), from_pandas=True)
                        for name in (*OVERLAP_METRICS, *MASK_MEASURES)
                    ),
                    *(
                        pa.array(nll.get(name, [None] * len(batch)), pa.float64())
                        for name in COMPONENTS
                    ),
                ],
                schema=_OUTCOME,
            )


def predict_rows(images: DataFrame, evaluator: Evaluator) -> dict[str, pd.DataFrame]:
    """Return engine -> one outcome per row of `images`, in the order of their paths.

    An extra engine has fewer outcomes where the CPU of a worker cannot run it.
    """
    columns = images.selectExpr(
        *("path", "split", "source", "concat(source, '/', patient_id) AS patient", "label"),
        *("pixels", "mask"),
    )
    spark = images.sparkSession
    shared = columns.repartition(spark.sparkContext.defaultParallelism)
    rows = map_batches(shared, evaluator, _OUTCOME).toPandas()
    return {
        name: rows[rows["engine"] == name].sort_values("path", ignore_index=True)
        for name in (evaluator.engine, *evaluator.extra_engines)
    }


def to_outcomes(rows: pd.DataFrame, classes: tuple[str, ...]) -> Outcomes:
    """Return rows of `predict_rows` as input of the gate."""
    if not len(rows):
        return Outcomes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    labels, probabilities = extract_label_arrays(rows, classes)
    return Outcomes(labels, probabilities.argmax(axis=1), rows["dice"].to_numpy(np.float64))


def compute_reference(
    outcomes: pd.DataFrame, classes: tuple[str, ...], novelty: NDArray[np.float64]
) -> Reference:
    """Return the reference distribution that scoring measures drift against.

    The bins of `confidence`, `lung_area` and `novelty` hold (about) equally many images.

    Args:
        outcomes: rows of `predict_rows`.
        classes: of the model.
        novelty: of each outcome, `(n,)`.
    """
    if not len(outcomes):
        return Reference()
    _, probabilities = extract_label_arrays(outcomes, classes)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(classes))
    return Reference(
        images=len(outcomes),
        label=dict(zip(classes, (counts / len(outcomes)).tolist(), strict=True)),
        numeric={
            "confidence": _create_histogram(probabilities.max(axis=1).astype(np.float64)),
            "lung_area": _create_histogram(outcomes["area"].to_numpy(np.float64)),
            "novelty": _create_histogram(novelty),
        },
    )


def _create_histogram(values: NDArray[np.float64]) -> Histogram:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, REFERENCE_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, values, side="right")
    shares = np.bincount(bins, minlength=len(edges) + 1) / len(values)
    return Histogram(edges.tolist(), shares.tolist())
