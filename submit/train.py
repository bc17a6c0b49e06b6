"""spark-submit submit/train.py --warehouse URI --model URI: table to model folder."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import TrainSettings


def run(settings: TrainSettings) -> Mapping[str, object]:
    from eagle_spark.training.job import train

    return train(settings)


if __name__ == "__main__":
    raise SystemExit(main(TrainSettings, run))
