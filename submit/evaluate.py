"""spark-submit submit/evaluate.py --input URI --model URI: what a model is worth on a folder."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import EvaluateSettings


def run(settings: EvaluateSettings) -> Mapping[str, object]:
    from eagle_spark.evaluation.evaluate import evaluate

    return evaluate(settings)


if __name__ == "__main__":
    raise SystemExit(main(EvaluateSettings, run))
