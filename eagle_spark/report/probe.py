"""Linear probe: is the source of an image predictable from the input of the class head?"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

MAX_GROUP_IMAGES = 400  # per class, source and split
INVERSE_REGULARISATION = 0.003  # C of the logistic regression


class ProbeResult(TypedDict):
    """Result of the linear probe.

    Attributes:
        sources: number of sources.
        images: validation images.
        balanced_accuracy: mean recall of the sources.
        chance: balanced accuracy of a guess.
    """

    sources: int
    images: int
    balanced_accuracy: float
    chance: float


def sample_features(features: DataFrame) -> pd.DataFrame:
    """Return `split`, `source`, `label` and `statistics` of a sample of the table `features`.

    Args:
        features: rows of one backbone; the sample depends on their ids alone.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import row_number, xxhash64

    place = row_number().over(
        Window.partitionBy("split", "source", "label").orderBy(xxhash64("image_id"), "path")
    )
    originals = features.where("copy = 0")
    sample = originals.withColumn("place", place).where(f"place <= {MAX_GROUP_IMAGES}")
    return sample.select("split", "source", "label", "statistics").toPandas()


def probe_source(rows: pd.DataFrame) -> ProbeResult | None:
    """Fit a linear model of the source on the train split and evaluate it on the val split.

    Classes have the same weight in every source, so that the class does not predict the source.
    Classes that are missing from a source are excluded.

    Returns:
        None unless two or more sources all share a class in both splits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    sources = rows["source"].nunique()
    groups = rows.groupby("label")[["split", "source"]].apply(
        lambda members: len(members.drop_duplicates())
    )
    shared = rows[rows["label"].isin(groups.index[groups == 2 * sources])]
    if sources < 2 or shared.empty:
        return None
    training, validation = shared[shared["split"] == "train"], shared[shared["split"] == "val"]
    scaler = StandardScaler().fit(_stack_statistics(training))
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=500)
    inputs = scaler.transform(_stack_statistics(training))
    model.fit(inputs, training["source"], _balanced_weights(training))
    predicted = model.predict(scaler.transform(_stack_statistics(validation)))
    correct = predicted == validation["source"].to_numpy()
    weights = _balanced_weights(validation)
    return {
        "sources": sources,
        "images": len(validation),
        "balanced_accuracy": float((correct * weights).sum() / weights.sum()),
        "chance": 1 / sources,
    }


def _balanced_weights(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return weights `(n,)` that give each class of each source the same total."""
    sizes = rows.groupby(["source", "label"])["label"].transform("size").to_numpy(np.float64)
    weights: NDArray[np.float64] = sizes.mean() / sizes
    return weights


def _stack_statistics(rows: pd.DataFrame) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(data, np.float16) for data in rows["statistics"]]).astype(
        np.float32
    )
