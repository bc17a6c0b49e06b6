"""Chest X-rays on Spark: read, train, score, monitor. Research use only.

    import eagle_spark as eagle

    model = eagle.load_model("hdfs:///models/cxr")
    model.predict("a.png")
    images = eagle.read_images(spark, "hdfs:///ward/")
    images.select("path", eagle.predict_udf(model)("content").alias("p")).select("path", "p.*")

The functions are loaded when they are first used.
"""

from importlib import import_module

__version__ = "0.2.0"

_MODULES = {
    "ImageRejectedError": "errors",
    "Metrics": "metrics.evaluation",
    "Model": "model.predictor",
    "Prediction": "model.predictor",
    "assign_splits": "api",
    "drift": "api",
    "evaluate": "api",
    "find_leaks": "api",
    "load_model": "api",
    "predict_udf": "api",
    "read_image": "api",
    "read_images": "api",
    "register_udf": "api",
    "score": "api",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"eagle_spark.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
