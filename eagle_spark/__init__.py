"""Chest X-rays on Spark: read, train, score, monitor. Research use only.

    import eagle_spark as eagle

    model = eagle.load_model("hdfs:///models/cxr")
    model.predict("a.png")
    images = eagle.read_images(spark, "hdfs:///ward/")
    images.select("path", eagle.predict_udf(model)("content").alias("p")).select("path", "p.*")

The functions are loaded when they are first used.
"""

from importlib import import_module

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Prediction",
    "__version__",
    "assign_splits",
    "drift",
    "find_leaks",
    "load_model",
    "predict_udf",
    "read_image",
    "read_images",
    "register_udf",
    "score",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("eagle_spark.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
