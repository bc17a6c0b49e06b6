"""Occlusion analysis of a sample of the test split: a Spark stage and its summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa

from eagle_spark.imaging.mask import decode_mask, encode_mask
from eagle_spark.model.occlusion import (
    AS_IS,
    IMAGE_VARIANTS,
    MASK_MARGIN,
    compute_attribution,
    dilate_mask,
    predict_occluded,
)
from eagle_spark.model.predictor import ModelRef
from eagle_spark.spark.batches import map_batches, tasks_for
from eagle_spark.spark.progress import watch_rows

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

# Images per class and source: predicted in all variants; predicted without each patch as well.
MAX_VARIANT_IMAGES, MAX_PATCH_IMAGES = 100, 12
IMAGES_PER_TASK = 16
CONSTANT_SHARE = 0.8  # of one class, above which predictions no longer depend on the image

_ATTRIBUTION_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "source", "label")),
        *((name, pa.list_(pa.float32())) for name in IMAGE_VARIANTS),
        ("inside", pa.float64()),
        ("area", pa.float64()),
        ("importance", pa.binary()),
        ("mask", pa.binary()),
        ("pixels", pa.binary()),
    ]
)
_PATCH_COLUMNS = ("inside", "area", "importance")


class OcclusionSummary(TypedDict):
    """Occlusion analysis of a source and class, or of all images.

    Attributes:
        accuracy: image variant -> accuracy.
        commonest: image variant -> most frequent prediction and its share.
        occluded: images predicted without each patch.
        inside: mean share of the importance inside the lungs.
        area: mean share of the image inside the lungs: the value of `inside` expected by chance.
    """

    source: str
    label: str
    images: int
    accuracy: dict[str, float]
    commonest: dict[str, tuple[str, float]]
    occluded: int
    inside: float | None
    area: float | None


@dataclass(frozen=True)
class OcclusionWorker:
    """Predicts occluded variants of images on the executors. Picklable."""

    model: ModelRef

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Convert rows of `images` to `_ATTRIBUTION_SCHEMA`.

        `mask` is the predicted one, `importance` float16. The occluded lungs are those of the
        row's mask, or the predicted ones for a row without mask. `_PATCH_COLUMNS` are null unless
        the row is `occluded`.
        """
        model = self.model.load()
        shape = (model.size, model.size)
        for batch in batches:
            rows = []
            for row in batch.to_pylist():
                pixels = np.frombuffer(row["pixels"], np.uint8).reshape(shape)
                outputs = model.compute_outputs(pixels[np.newaxis])
                probabilities = outputs.label[0]
                predicted_mask = outputs.mask[0] >= model.metadata.mask_threshold
                mask = predicted_mask if row["mask"] is None else decode_mask(row["mask"])
                lungs = dilate_mask(mask, round(MASK_MARGIN * model.size))
                variants = predict_occluded(model.compute_outputs, pixels, lungs, probabilities)
                row |= {name: variant.tolist() for name, variant in variants.items()}
                row |= {"mask": encode_mask(predicted_mask), **dict.fromkeys(_PATCH_COLUMNS)}
                if row["occluded"]:
                    attribution = compute_attribution(
                        model.compute_outputs, pixels, lungs, probabilities
                    )
                    row |= {"inside": attribution.inside, "area": attribution.area}
                    row |= {"importance": attribution.importance.astype(np.float16).tobytes()}
                rows.append(row)
            yield pa.RecordBatch.from_pylist(rows, schema=_ATTRIBUTION_SCHEMA)


def compute_attributions(images: DataFrame, worker: OcclusionWorker) -> pd.DataFrame:
    """Return rows of `_ATTRIBUTION_SCHEMA` for a sample of each class and source, ordered by path.

    Args:
        images: rows of the table `images`; the sample depends on their ids alone.
    """
    from pyspark.sql import Window
    from pyspark.sql.functions import row_number, xxhash64

    place = row_number().over(
        Window.partitionBy("source", "label").orderBy(xxhash64("image_id"), "path")
    )
    sample = images.withColumn("place", place).where(f"place <= {MAX_VARIANT_IMAGES}")
    occluded = (sample.place <= MAX_PATCH_IMAGES).alias("occluded")
    sample = sample.select("path", "source", "label", "pixels", "mask", occluded)
    spark, count = images.sparkSession, sample.count()
    with watch_rows(spark, "occlusion", count) as count_rows:
        partitions = sample.repartition(tasks_for(spark, count, IMAGES_PER_TASK))
        rows = map_batches(partitions, count_rows(worker), _ATTRIBUTION_SCHEMA).toPandas()
    return rows.sort_values("path", ignore_index=True)


def summarise_occlusion(
    attributions: pd.DataFrame, classes: Sequence[str]
) -> list[OcclusionSummary]:
    """Summarise the rows of `compute_attributions`: all of them first, then each source and class.

    Args:
        classes: of the model, in the order of its probabilities.
    """
    summaries = [_summarise_group("all", "all", attributions, classes)]
    for (source, label), rows in attributions.groupby(["source", "label"], sort=True):
        summaries.append(_summarise_group(str(source), str(label), rows, classes))
    return summaries


def _summarise_group(
    source: str, label: str, rows: pd.DataFrame, classes: Sequence[str]
) -> OcclusionSummary:
    truth = [classes.index(name) for name in rows["label"]]
    predicted = {name: np.stack(rows[name].to_list()).argmax(axis=1) for name in IMAGE_VARIANTS}
    counts = {
        name: np.bincount(labels, minlength=len(classes)) for name, labels in predicted.items()
    }
    return {
        "source": source,
        "label": label,
        "images": len(rows),
        "accuracy": {name: float(np.mean(labels == truth)) for name, labels in predicted.items()},
        "commonest": {
            name: (classes[int(count.argmax())], float(count.max() / len(rows)))
            for name, count in counts.items()
        },
        "occluded": int(rows["inside"].notna().sum()),
        "inside": _finite_mean(rows["inside"]),
        "area": _finite_mean(rows["area"]),
    }


def _finite_mean(values: pd.Series[float]) -> float | None:
    return float(values.mean()) if values.notna().any() else None


def describe_occlusion(summaries: Sequence[OcclusionSummary], classes: Sequence[str]) -> list[str]:
    """Interpret the summary of all images, the first one, in plain sentences."""
    overall = summaries[0]
    accuracy, chance = overall["accuracy"], 1 / len(classes)
    sentences = [
        f"Accuracy is {accuracy[AS_IS]:.2f} on the unmodified images, "
        f"{accuracy['lungs_only']:.2f} with everything outside the lungs occluded, "
        f"{accuracy['without_lungs']:.2f} with the lungs occluded and "
        f"{accuracy['without_lung_boxes']:.2f} with the bounding boxes of the lungs occluded. "
        f"Chance level is {chance:.2f}."
    ]
    excess = accuracy["without_lung_boxes"] - chance
    label, share = overall["commonest"]["without_lung_boxes"]
    if share > CONSTANT_SHARE:
        sentences.append(
            f"With the bounding boxes of the lungs occluded, {share:.2f} of the images are "
            f"classified as {label}, whatever their true class. Because images without lungs are "
            f"also classified as {label}, a high accuracy for {label} is weak evidence."
        )
    elif excess > (accuracy[AS_IS] - chance) / 2:
        sentences.append(
            "More than half of the accuracy above chance remains without the lungs: the model has "
            "learned shortcuts, properties of the collections, and not only signs of disease. "
            "Expect lower accuracy on images from other sources."
        )
    elif excess > 0.1:
        sentences.append(
            "Part of the accuracy above chance remains without the lungs: the model relies partly "
            "on shortcuts."
        )
    else:
        sentences.append("Without the lungs, accuracy is at most 0.10 above chance level.")
    if accuracy["lungs_only"] < (accuracy[AS_IS] + chance) / 2:
        sentences.append(
            "With the lungs alone, less than half of the accuracy above chance remains: the model "
            "depends on the surroundings of the lungs, or images without surroundings are "
            "out-of-distribution for it."
        )
    if overall["inside"] is None or not overall["area"]:
        return sentences
    ratio = overall["inside"] / overall["area"]
    sentences.append(
        f"The lungs cover {overall['area']:.2f} of the image area and contain "
        f"{overall['inside']:.2f} of the occlusion importance, {ratio:.1f} times the share "
        f"expected by chance ({overall['occluded']} images)."
    )
    return sentences
