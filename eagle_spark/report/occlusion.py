"""What the model's answers depend on, over a sample of the test split: a Spark stage, summed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.imaging.mask import decode_mask, encode_mask
from eagle_spark.model.engines import Shipped
from eagle_spark.model.occlusion import (
    AS_IS,
    BLANKED,
    MARGIN,
    ask_blanked,
    attribute,
    widened,
)
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import tasks_for

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

# Images of every class of every source: asked without their parts, and without each patch too.
BLANKED_EACH, OCCLUDED_EACH = 100, 12
IMAGES_PER_TASK = 16
CONSTANT = 0.8  # share of one answer beyond which the images do not matter any more

_FOUND = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "source", "label")),
        *((name, pa.list_(pa.float32())) for name in BLANKED),
        ("inside", pa.float64()),
        ("area", pa.float64()),
        ("importance", pa.binary()),
        ("mask", pa.binary()),
        ("pixels", pa.binary()),
    ]
)
_OCCLUDED = ("inside", "area", "importance")


class Attributor(Shipped):
    """Asks what an answer depends on."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of `images` into `_FOUND`; `mask` is the predicted one, `importance` float16.

        Lungs are those of the row's own mask, and the predicted ones where it has none. What
        depends on patches is null but for rows that are `occluded`.
        """
        bundle, engine = self.load()
        side = (bundle.size, bundle.size)
        for batch in batches:
            rows = []
            for row in batch.to_pylist():
                pixels = np.frombuffer(row["pixels"], np.uint8).reshape(side)
                said = engine.predict(pixels[np.newaxis])
                lungs = said.mask[0] >= bundle.threshold
                own = lungs if row["mask"] is None else decode_mask(row["mask"])
                wide = widened(own, round(MARGIN * bundle.size))
                answers = ask_blanked(engine, pixels, wide, said.label[0])
                row |= {name: shares.tolist() for name, shares in answers.items()}
                row |= {"mask": encode_mask(lungs), **dict.fromkeys(_OCCLUDED)}
                if row["occluded"]:
                    found = attribute(engine, pixels, wide, said.label[0])
                    row |= {"inside": found.inside, "area": found.area}
                    row |= {"importance": found.importance.astype(np.float16).tobytes()}
                rows.append(row)
            yield pa.RecordBatch.from_pylist(rows, schema=_FOUND)


def attributions(images: DataFrame, attributor: Attributor) -> pd.DataFrame:
    """Return a row of `_FOUND` for some images of each class of each source, ordered by path.

    Args:
        images: rows of the table `images`; which ones are taken depends on their ids alone.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import row_number, xxhash64
    from pyspark.sql.pandas.types import from_arrow_schema

    place = row_number().over(
        Window.partitionBy("source", "label").orderBy(xxhash64("image_id"), "path")
    )
    some = images.withColumn("place", place).where(f"place <= {BLANKED_EACH}")
    occluded = (some.place <= OCCLUDED_EACH).alias("occluded")
    some = some.select("path", "source", "label", "pixels", "mask", occluded)
    spark, count = images.sparkSession, some.count()
    with watch_tasks(spark, "shortcuts", count):
        shared = some.repartition(tasks_for(spark, count, IMAGES_PER_TASK))
        rows = shared.mapInArrow(attributor, from_arrow_schema(_FOUND)).toPandas()
    return rows.sort_values("path", ignore_index=True)


def shortcut_figures(rows: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each source and class, and for all, what `attributions` found.

    `images`; `accuracy`, by what was blanked; `commonest`, by what was blanked the class that is
    answered most often and its share; of the `occluded` ones `inside`, the mean share of importance
    in the lungs, and `area`, the share of the image that they cover: by chance both would be the
    same.
    """
    found = [_of("all", "all", rows, classes)]
    for (source, label), some in rows.groupby(["source", "label"], sort=True):
        found.append(_of(str(source), str(label), some, classes))
    return found


def _of(source: str, label: str, rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    truth = [classes.index(name) for name in rows["label"]]
    said = {name: np.stack(rows[name].to_list()).argmax(axis=1) for name in BLANKED}
    counts = {name: np.bincount(one, minlength=len(classes)) for name, one in said.items()}
    return {
        "source": source,
        "label": label,
        "images": len(rows),
        "accuracy": {name: float(np.mean(one == truth)) for name, one in said.items()},
        "commonest": {
            name: (classes[int(one.argmax())], float(one.max() / len(rows)))
            for name, one in counts.items()
        },
        "occluded": int(rows["inside"].notna().sum()),
        "inside": _mean(rows["inside"]),
        "area": _mean(rows["area"]),
    }


def _mean(values: pd.Series[float]) -> float | None:
    return float(values.mean()) if values.notna().any() else None


def in_words(figures: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[str]:
    """Return what the figures of all images mean, in plain sentences."""
    whole = figures[0]
    accuracy, chance = whole["accuracy"], 1 / len(classes)
    words = [
        f"With everything outside of the lungs taken away the model is right on "
        f"{accuracy['lungs_only']:.2f} of the images instead of {accuracy[AS_IS]:.2f}; with the "
        f"lungs taken away on {accuracy['without_lungs']:.2f}, and with whole boxes around them "
        f"on {accuracy['without_lung_boxes']:.2f}. A guess would be right on {chance:.2f}."
    ]
    excess = accuracy["without_lung_boxes"] - chance
    answer, share = whole["commonest"]["without_lung_boxes"]
    if share > CONSTANT:
        words.append(
            f"Without the lungs it answers {answer} to {share:.2f} of the images, whatever they "
            f"are: that {answer} is right on others says little while emptiness looks like it."
        )
    elif excess > (accuracy[AS_IS] - chance) / 2:
        words.append(
            "So more than half of what it knows beyond a guess it can tell without seeing the "
            "lungs at all: it has learned what these collections look like, not only disease. "
            "Expect it to be wrong on images from elsewhere."
        )
    elif excess > 0.1:
        words.append(
            "So a part of what it knows it can tell without seeing the lungs: some of it is a "
            "shortcut."
        )
    else:
        words.append("So without the lungs it knows hardly more than a guess.")
    if accuracy["lungs_only"] < (accuracy[AS_IS] + chance) / 2:
        words.append(
            "The lungs alone do not suffice: it needs what is around them, or an image without "
            "surroundings is too strange to it to be judged."
        )
    if whole["inside"] is None or not whole["area"]:
        return words
    ratio = whole["inside"] / whole["area"]
    words.append(
        f"The lungs cover {whole['area']:.2f} of an image, and {whole['inside']:.2f} of what its "
        f"answers depend on lies there: {ratio:.1f} times what chance would give "
        f"({whole['occluded']} images)."
    )
    return words
