"""What the model is told of its home: densities of novelty, and the limits of review."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.metrics.calibration import NEVER_SURE, enough_confidence
from eagle_spark.model.engines import Shipped
from eagle_spark.model.novelty import AXES, Novelty, detail, fit_novelty
from eagle_spark.model.review import MASK_MEASURES, MODEL_FLAGS, Limits, mask_measures
from eagle_spark.training.data import stack_pixels

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

SAMPLE = 4096  # images that densities are fitted to
NOVEL = 0.02  # share of the validation split that each density calls new
STRANGE = 0.005  # share of home that lies below, and above, the range of a mask's measure

Bools = NDArray[np.bool_]

_MILLION = 1_000_000
_SEEN = pa.schema(
    [
        *((name, pa.list_(pa.float32())) for name in AXES),
        *((name, pa.float64()) for name in MASK_MEASURES),
    ]
)


@dataclass(frozen=True)
class Home:
    """What images of the train split look like.

    Attributes:
        novelty: densities fitted to them.
        masks: measures of the predicted masks, by `MASK_MEASURES`, `(n,)`.
    """

    novelty: Novelty
    masks: Mapping[str, NDArray[np.float64]]


class Onlooker(Shipped):
    """Tells what images look like."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of `images` into what each of `AXES` is fitted to, and measures of masks."""
        bundle, engine = self.load()
        for batch in batches:
            pixels = stack_pixels(batch["pixels"].to_pylist(), bundle.size)
            said = engine.predict(pixels)
            values: dict[str, list[Any]] = {
                "detail": list(detail(pixels)),
                "features": list(said.statistics),
            }
            measured = [mask_measures(lungs) for lungs in said.mask >= bundle.threshold]
            values |= {name: [one[name] for one in measured] for name in MASK_MEASURES}
            columns = [pa.array(values[field.name], field.type) for field in _SEEN]
            yield pa.RecordBatch.from_arrays(columns, schema=_SEEN)


def learn_home(images: DataFrame, count: int, onlooker: Onlooker) -> Home:
    """Look at about `SAMPLE` of the `count` rows of `images`, two at least.

    Which ones are taken depends on their ids alone.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    share = round(SAMPLE / count * _MILLION)
    some = images.where(f"pmod(xxhash64(image_id), {_MILLION}) < {share}").select("pixels")
    shared = some.repartition(images.sparkSession.sparkContext.defaultParallelism)
    seen = shared.mapInArrow(onlooker, from_arrow_schema(_SEEN)).toArrow()
    return Home(
        fit_novelty({name: np.stack(seen[name].to_numpy()) for name in AXES}),
        {name: seen[name].to_numpy() for name in MASK_MEASURES},
    )


def limits_of(
    outcomes: pd.DataFrame,
    classes: tuple[str, ...],
    masks: Mapping[str, NDArray[np.float64]],
) -> Limits:
    """Return from where on a person has to look, by outcomes of the validation split.

    Without any, everything needs review for its confidence, and nothing for another reason.

    Args:
        masks: measures of more predicted masks, which the ranges are taken from as well: ends of a
            range want more images than a validation split may have.
    """
    if not len(outcomes):
        return Limits(NEVER_SURE)
    values = {name: outcomes[name].to_numpy(np.float64) for name in (*AXES, *MASK_MEASURES)}
    values |= {name: np.concatenate([values[name], masks[name]]) for name in MASK_MEASURES}

    def between(name: str, low: float, high: float) -> tuple[float, float]:
        found = np.quantile(values[name], (low, high))
        return float(found[0]), float(found[1])

    return Limits(
        enough_confidence(outcomes, classes),
        {name: between(name, 0.5, 1 - NOVEL) for name in AXES},
        {name: between(name, STRANGE, 1 - STRANGE) for name in MASK_MEASURES},
    )


def novelty_of(outcomes: pd.DataFrame, limits: Limits) -> NDArray[np.float64]:
    """Return how new the image of each outcome is, `(n,)`; NaN where no limits are known."""
    if not limits.novelty:
        return np.full(len(outcomes), np.nan)
    return limits.novelty_of({name: outcomes[name].to_numpy(np.float64) for name in AXES})


def flags_of(outcomes: pd.DataFrame, limits: Limits) -> dict[str, Bools]:
    """Return for each reason whether it flags each outcome, `(n,)`."""
    novelty = novelty_of(outcomes, limits).tolist()
    measures: list[Any] = outcomes[list(MASK_MEASURES)].to_dict("records")
    confidence = [max(probabilities) for probabilities in outcomes["probabilities"]]
    found = [limits.flags(*one) for one in zip(confidence, novelty, measures, strict=True)]
    return {str(flag): np.array([flag in own for own in found], bool) for flag in MODEL_FLAGS}
