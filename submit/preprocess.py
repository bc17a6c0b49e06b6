"""spark-submit submit/preprocess.py --input URI --warehouse URI: labelled folder to tables."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import PreprocessSettings


def run(settings: PreprocessSettings) -> Mapping[str, object]:
    from eagle_spark.datasets.ingest import preprocess

    return preprocess(settings)


if __name__ == "__main__":
    raise SystemExit(main(PreprocessSettings, run))
