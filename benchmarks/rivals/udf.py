"""Spark with a pandas UDF over `keras.predict`, as in most tutorials."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # pandas_udf reads the annotations

from benchmarks.rivals.work import parse_arguments


def main() -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import pandas_udf

    arguments = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    spark = SparkSession.builder.master(f"local[{cores}]").getOrCreate()
    model_file = str(Path(arguments.model) / "model.keras")
    cache: dict[str, Any] = {}

    def predict(content: pd.Series) -> pd.DataFrame:
        import io

        import keras
        import tensorflow as tf
        from PIL import Image

        if not cache:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            cache["model"] = keras.models.load_model(model_file, compile=False)
        size = cache["model"].input_shape[1]
        pixels = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((size, size)))
                for data in content
            ]
        )
        outputs = cache["model"].predict(pixels[..., None].astype("float32"), verbose=0)
        masks = (outputs["mask"][..., 0] >= 0.5).astype("float32").reshape(len(content), -1)
        return pd.DataFrame(
            {
                "label": outputs["label"].argmax(axis=1),
                "confidence": outputs["label"].max(axis=1),
                "mask": list(masks),
                "scored_at": time.time(),
            }
        )

    schema = "label INT, confidence FLOAT, mask ARRAY<FLOAT>, scored_at DOUBLE"
    files = spark.read.format("binaryFile").load(arguments.paths).repartition(4 * cores)
    row = pandas_udf(predict, schema)("content").alias("row")  # type: ignore[call-overload]
    files.select("path", row).select("path", "row.*").write.parquet(arguments.out)
    spark.stop()


if __name__ == "__main__":
    main()
