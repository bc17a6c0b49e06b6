"""Fit novelty densities and review thresholds on the training distribution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.metrics.calibration import UNREACHABLE_CONFIDENCE, confidence_threshold
from eagle_spark.model.novelty import COMPONENTS, NoveltyModel, compute_detail, fit_novelty
from eagle_spark.model.predictor import ModelRef
from eagle_spark.model.review import (
    MASK_MEASURES,
    MODEL_FLAGS,
    RANGED_MASK_MEASURES,
    ReviewThresholds,
    measure_mask,
)
from eagle_spark.spark.batches import map_batches
from eagle_spark.training.data import stack_pixels

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

SAMPLE_IMAGES = 4096  # densities are fitted to about this many images
NOVELTY_TAIL = 0.02  # share of the validation split above the threshold of each density
MASK_TAIL = 0.005  # share of the reference below, and above, the range of a mask measure

Bools = NDArray[np.bool_]

_MILLION = 1_000_000
_STATISTICS_SCHEMA = pa.schema(
    [
        *((name, pa.list_(pa.float32())) for name in COMPONENTS),
        *((name, pa.float64()) for name in RANGED_MASK_MEASURES),
    ]
)


@dataclass(frozen=True)
class ReferenceDistribution:
    """The distribution of the images of the train split.

    Attributes:
        novelty: densities fitted to the images.
        masks: measures of the predicted masks, by `RANGED_MASK_MEASURES`, `(n,)`.
    """

    novelty: NoveltyModel
    masks: Mapping[str, NDArray[np.float64]]


class StatisticsWorker(ModelRef):
    """Computes the statistics that a reference distribution is fitted to."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of `images` into the inputs of `COMPONENTS` and the measures of masks."""
        model = self.load()
        for batch in batches:
            pixels = stack_pixels(batch["pixels"].to_pylist(), model.size)
            outputs = model.compute_outputs(pixels)
            values: dict[str, Sequence[object]] = {
                "detail": list(compute_detail(pixels)),
                "features": list(outputs.statistics),
            }
            measures = [
                measure_mask(lungs)
                for lungs in outputs.mask >= model.bundle.metadata.mask_threshold
            ]
            values |= {name: [row[name] for row in measures] for name in RANGED_MASK_MEASURES}
            columns = [pa.array(values[field.name], field.type) for field in _STATISTICS_SCHEMA]
            yield pa.RecordBatch.from_arrays(columns, schema=_STATISTICS_SCHEMA)


def fit_reference(images: DataFrame, count: int, worker: StatisticsWorker) -> ReferenceDistribution:
    """Fit the reference distribution to about `SAMPLE_IMAGES` of the rows of `images`.

    The sample depends on the image ids alone.

    Args:
        count: number of rows, two at least.
    """
    share = round(SAMPLE_IMAGES / count * _MILLION)
    sample = images.where(f"pmod(xxhash64(image_id), {_MILLION}) < {share}").select("pixels")
    partitioned = sample.repartition(images.sparkSession.sparkContext.defaultParallelism)
    statistics = map_batches(partitioned, worker, _STATISTICS_SCHEMA).toArrow()
    return ReferenceDistribution(
        fit_novelty({name: np.stack(statistics[name].to_numpy()) for name in COMPONENTS}),
        {name: statistics[name].to_numpy() for name in RANGED_MASK_MEASURES},
    )


def fit_thresholds(
    outcomes: pd.DataFrame,
    classes: tuple[str, ...],
    masks: Mapping[str, NDArray[np.float64]],
) -> ReviewThresholds:
    """Fit the review thresholds to outcomes of the validation split.

    Without outcomes, every prediction needs review for its confidence, and none for another reason.

    Args:
        masks: measures of predicted masks of the train split, which the ranges are fitted to as
            well: the ends of a range need more images than a validation split may have.
    """
    if not len(outcomes):
        return ReviewThresholds(confidence=UNREACHABLE_CONFIDENCE, novelty={}, mask={})
    values = {
        name: outcomes[name].to_numpy(np.float64) for name in (*COMPONENTS, *RANGED_MASK_MEASURES)
    }
    values |= {name: np.concatenate([values[name], masks[name]]) for name in RANGED_MASK_MEASURES}

    def quantiles(name: str, low: float, high: float) -> tuple[float, float]:
        ends = np.quantile(values[name], (low, high))
        return float(ends[0]), float(ends[1])

    return ReviewThresholds(
        confidence=confidence_threshold(outcomes, classes),
        novelty={name: quantiles(name, 0.5, 1 - NOVELTY_TAIL) for name in COMPONENTS},
        mask={name: quantiles(name, MASK_TAIL, 1 - MASK_TAIL) for name in RANGED_MASK_MEASURES},
    )


def novelty_of_outcomes(
    outcomes: pd.DataFrame, thresholds: ReviewThresholds
) -> NDArray[np.float64]:
    """Return the novelty of each outcome, `(n,)`; NaN without thresholds of novelty."""
    if not thresholds.novelty:
        return np.full(len(outcomes), np.nan)
    return thresholds.compute_novelty(
        {name: outcomes[name].to_numpy(np.float64) for name in COMPONENTS}
    )


def flag_outcomes(outcomes: pd.DataFrame, thresholds: ReviewThresholds) -> dict[str, Bools]:
    """Return for each reason whether it flags each outcome, `(n,)`."""
    novelty = novelty_of_outcomes(outcomes, thresholds).tolist()
    measures = [
        dict(zip(MASK_MEASURES, row, strict=True))
        for row in outcomes[list(MASK_MEASURES)].to_numpy(np.float64).tolist()
    ]
    confidence = [max(probabilities) for probabilities in outcomes["probabilities"]]
    flags = [
        thresholds.compute_flags(*row) for row in zip(confidence, novelty, measures, strict=True)
    ]
    return {str(flag): np.array([flag in row for row in flags], bool) for flag in MODEL_FLAGS}
