"""spark-submit submit/doctor.py --warehouse URI: is this environment fit for the jobs?"""

from collections.abc import Mapping

from eagle_spark.job import main
from eagle_spark.settings import DoctorSettings


def run(settings: DoctorSettings) -> Mapping[str, object]:
    from eagle_spark.doctor.doctor import examine

    return examine(settings)


if __name__ == "__main__":
    raise SystemExit(main(DoctorSettings, run))
