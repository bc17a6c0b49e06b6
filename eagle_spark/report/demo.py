"""The last step of `make demo`: query the predictions and draw a gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from eagle_spark.io import split_uri
from eagle_spark.report.gallery import GalleryEntry, draw_gallery
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS

COUNTS_BY_LABEL = f"""
SELECT status, coalesce(label, reason) AS label_or_reason, count(*) AS images,
       round(avg(confidence), 3) AS confidence, round(avg(lung_area), 3) AS lung_area,
       count_if(needs_review) AS needs_review
FROM {PREDICTIONS.full_name}
GROUP BY status, coalesce(label, reason)
ORDER BY status DESC, images DESC, label_or_reason
"""
# Images of each class: the gallery shows every predicted class, not only the most frequent one.
GALLERY_ROWS = f"""
SELECT path, label, confidence, needs_review, mask FROM (
  SELECT *, row_number() OVER (PARTITION BY label ORDER BY image_id) AS place
  FROM {PREDICTIONS.full_name} WHERE status = 'scored')
ORDER BY place, label LIMIT 12
"""


TEST_IMAGES = f"""
SELECT path FROM {IMAGES.full_name} WHERE split = 'test' ORDER BY image_id LIMIT 500
"""


def write_gallery(warehouse: str, out: Path) -> Iterator[str]:
    """Draw some predictions into the PNG `out`; yield a query of them and its result."""
    with open_session("gallery", warehouse) as spark:
        yield COUNTS_BY_LABEL.strip()
        table = spark.sql(COUNTS_BY_LABEL)
        yield table._show_string(50, False)  # type: ignore[operator]  # the text of `show`
        entries = [GalleryEntry(**row.asDict()) for row in spark.sql(GALLERY_ROWS).collect()]
    title = "Predicted class, confidence and lung mask. Research use only, not a diagnosis"
    draw_gallery(entries, title, out)


def link_test_images(warehouse: str, folder: Path) -> int:
    """Create `folder` with links to local images of the test split; return their number."""
    with open_session("link-test", warehouse) as spark:
        paths = [row.path for row in spark.sql(TEST_IMAGES).collect()]
    link_files(paths, folder)
    return len(paths)


def link_files(uris: Sequence[str], folder: Path) -> None:
    """Create `folder` with links to local files; a number in each name makes it unique."""
    folder.mkdir(parents=True)
    for number, uri in enumerate(uris):
        path = Path(split_uri(uri)[2])
        (folder / f"{number:03d}-{path.name}").symlink_to(path)
