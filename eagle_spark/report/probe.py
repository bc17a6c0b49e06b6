"""Can the source of an image be told from what the model sees of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

EACH = 400  # images of every class of every source and split
STRENGTH = 0.003  # of the logistic regression, C


def probe_rows(features: DataFrame) -> pd.DataFrame:
    """Return `split`, `source`, `label` and `statistics` of some rows of the table `features`.

    Args:
        features: rows of one backbone; which ones are taken depends on their ids alone.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import row_number, xxhash64

    place = row_number().over(
        Window.partitionBy("split", "source", "label").orderBy(xxhash64("image_id"), "path")
    )
    some = features.where("copy = 0").withColumn("place", place).where(f"place <= {EACH}")
    return some.select("split", "source", "label", "statistics").toPandas()


def probe_source(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Fit a linear model of the source on the train split, and ask it about the val split.

    Classes weigh the same in every source, so that the class gives no hint; a class that a source
    lacks is left out. None where no two sources share a class in both splits.

    Returns:
        `sources`, `images` (asked about), `balanced_accuracy` (mean recall of the sources) and
        `chance`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    sources = rows["source"].nunique()
    spread = rows.groupby("label")[["split", "source"]].apply(
        lambda some: len(some.drop_duplicates())
    )
    kept = rows[rows["label"].isin(spread.index[spread == 2 * sources])]
    if sources < 2 or kept.empty:
        return None
    training, asked = kept[kept["split"] == "train"], kept[kept["split"] == "val"]
    scaler = StandardScaler().fit(_statistics(training))
    model = LogisticRegression(C=STRENGTH, max_iter=500)
    model.fit(scaler.transform(_statistics(training)), training["source"], _even(training))
    right = model.predict(scaler.transform(_statistics(asked))) == asked["source"].to_numpy()
    weights = _even(asked)
    return {
        "sources": sources,
        "images": len(asked),
        "balanced_accuracy": float((right * weights).sum() / weights.sum()),
        "chance": 1 / sources,
    }


def _even(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return weights by which each class of each source weighs the same."""
    size = rows.groupby(["source", "label"])["label"].transform("size").to_numpy(np.float64)
    even: NDArray[np.float64] = size.mean() / size
    return even


def _statistics(rows: pd.DataFrame) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(one, np.float16) for one in rows["statistics"]]).astype(
        np.float32
    )
