"""spark-submit submit/maintain.py --warehouse URI: compact tables, expire what is old."""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import MaintainSettings


def run(settings: MaintainSettings) -> Mapping[str, object]:
    from eagle_spark.tables.maintenance import maintain

    return maintain(settings)


if __name__ == "__main__":
    raise SystemExit(main(MaintainSettings, run))
