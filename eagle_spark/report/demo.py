"""The last step of `make demo`: an answer by SQL, and a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from eagle_spark.io import split_uri
from eagle_spark.report.gallery import Shown, draw_gallery
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS

BY_LABEL = f"""
SELECT status, coalesce(label, reason) AS label_or_reason, count(*) AS images,
       round(avg(confidence), 3) AS confidence, round(avg(lung_area), 3) AS lung_area,
       count_if(needs_review) AS needs_review
FROM {PREDICTIONS.full_name}
GROUP BY status, coalesce(label, reason)
ORDER BY status DESC, images DESC, label_or_reason
"""
# Some of each class: the picture shows what the table holds, not only the commonest class.
SOME = f"""
SELECT path, label, confidence, needs_review, mask FROM (
  SELECT *, row_number() OVER (PARTITION BY label ORDER BY image_id) AS place
  FROM {PREDICTIONS.full_name} WHERE status = 'scored')
ORDER BY place, label LIMIT 12
"""


TEST_IMAGES = f"""
SELECT path FROM {IMAGES.full_name} WHERE split = 'test' ORDER BY image_id LIMIT 500
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warehouse", required=True, metavar="URI")
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--out", metavar="PNG", type=Path, help="query and draw the predictions")
    step.add_argument("--link-test", metavar="DIR", type=Path, help="link test images into DIR")
    given = parser.parse_args()
    with open_session("demo", given.warehouse) as spark:
        if given.link_test:
            link([row.path for row in spark.sql(TEST_IMAGES).collect()], given.link_test)
            return
        print(BY_LABEL.strip())
        spark.sql(BY_LABEL).show(50, truncate=False)
        rows = [Shown(**row.asDict()) for row in spark.sql(SOME).collect()]
    title = "Predicted class, confidence and lungs. Research use only, not a diagnosis"
    draw_gallery(rows, title, given.out)


def link(uris: list[str], folder: Path) -> None:
    """Fill a new folder with links to local files, numbered so that no two names meet."""
    folder.mkdir(parents=True)
    for number, uri in enumerate(uris):
        path = Path(split_uri(uri)[2])
        (folder / f"{number:03d}-{path.name}").symlink_to(path)


if __name__ == "__main__":
    main()
