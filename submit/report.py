"""spark-submit submit/report.py --warehouse URI --model URI --out DIR: one page on a model."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import ReportSettings


def run(settings: ReportSettings) -> Mapping[str, object]:
    from eagle_spark.report.report import report

    return report(settings)


if __name__ == "__main__":
    raise SystemExit(main(ReportSettings, run))
