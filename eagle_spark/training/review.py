"""What the model is told of its home: densities of novelty, and the limits of review."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.calibration import NEVER_SURE, enough_confidence
from eagle_spark.model.engines import ENGINES
from eagle_spark.model.novelty import AXES, Novelty, detail, fit_novelty
from eagle_spark.model.review import MASK_MEASURES, Flag, Limits
from eagle_spark.training.evaluation import pixels_of

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

SAMPLE = 4096  # images that densities are fitted to
NOVEL = 0.03  # share of the validation split that each density calls new
STRANGE = 0.005  # share of it that lies below, and above, the range of a mask's measure

Bools = NDArray[np.bool_]

_MILLION = 1_000_000
_SEEN = pa.schema([(name, pa.list_(pa.float32())) for name in AXES])


@dataclass(frozen=True)
class Onlooker:
    """What every worker needs to tell what images look like. Small, picklable."""

    model: str
    model_id: str
    engine: str
    threads: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of `images` into the values that each of `AXES` is fitted to."""
        bundle = open_bundle(self.model, expected_id=self.model_id)
        engine = ENGINES[self.engine].load(bundle.path, self.threads)
        for batch in batches:
            pixels = pixels_of(batch, bundle.size)
            values = {"detail": detail(pixels), "features": engine.predict(pixels).statistics}
            columns = [pa.array(list(values[name]), _SEEN.field(name).type) for name in AXES]
            yield pa.RecordBatch.from_arrays(columns, schema=_SEEN)


def learn_novelty(images: DataFrame, count: int, onlooker: Onlooker) -> Novelty:
    """Fit the densities to about `SAMPLE` of the `count` rows of `images`, two at least.

    Which ones are taken depends on their ids alone.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    share = round(SAMPLE / count * _MILLION)
    some = images.where(f"pmod(xxhash64(image_id), {_MILLION}) < {share}").select("pixels")
    shared = some.repartition(images.sparkSession.sparkContext.defaultParallelism)
    seen = shared.mapInArrow(onlooker, from_arrow_schema(_SEEN)).toArrow()
    return fit_novelty({name: np.stack(seen[name].to_numpy()) for name in AXES})


def limits_of(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> Limits:
    """Return from where on a person has to look, by outcomes of the validation split.

    Without any, everything needs review for its confidence, and nothing for another reason.
    """
    if not len(outcomes):
        return Limits(NEVER_SURE)
    values = {name: outcomes[name].to_numpy(np.float64) for name in (*AXES, *MASK_MEASURES)}

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
    return {str(flag): np.array([flag in own for own in found], bool) for flag in Flag}
