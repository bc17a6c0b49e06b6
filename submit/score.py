"""spark-submit submit/score.py --images URI --model URI --warehouse URI: folder to predictions."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import ScoreSettings


def run(settings: ScoreSettings) -> Mapping[str, object]:
    from eagle_spark.scoring.job import score

    return score(settings)


if __name__ == "__main__":
    raise SystemExit(main(ScoreSettings, run))
