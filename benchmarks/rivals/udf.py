"""Spark the way most people write it: a pandas UDF over `keras.predict`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # a pandas UDF is told its kind by its annotations

from benchmarks.rivals.work import told


def main() -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import pandas_udf

    given = told()
    cores = len(os.sched_getaffinity(0))
    spark = SparkSession.builder.master(f"local[{cores}]").getOrCreate()
    model_file = str(Path(given.model) / "model.keras")
    held: dict[str, Any] = {}

    def predict(content: pd.Series) -> pd.DataFrame:
        import io

        import keras
        import tensorflow as tf
        from PIL import Image

        if not held:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            held["model"] = keras.models.load_model(model_file, compile=False)
        size = held["model"].input_shape[1]
        pixels = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((size, size)))
                for data in content
            ]
        )
        found = held["model"].predict(pixels[..., None].astype("float32"), verbose=0)
        masks = (found["mask"][..., 0] >= 0.5).astype("float32").reshape(len(content), -1)
        return pd.DataFrame(
            {
                "label": found["label"].argmax(axis=1),
                "confidence": found["label"].max(axis=1),
                "mask": list(masks),
                "scored_at": time.time(),
            }
        )

    kind = "label INT, confidence FLOAT, mask ARRAY<FLOAT>, scored_at DOUBLE"
    files = spark.read.format("binaryFile").load(given.paths).repartition(4 * cores)
    rows = files.select("path", pandas_udf(predict, kind)("content").alias("said"))  # type: ignore[call-overload]
    rows.select("path", "said.*").write.parquet(given.out)
    spark.stop()


if __name__ == "__main__":
    main()
