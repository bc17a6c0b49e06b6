"""Images and masks of a labelled folder, read and decoded on the executors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eagle_spark.dataset.matching import Candidate
from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.images.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.images.hashes import image_id, perceptual_hash
from eagle_spark.images.masks import encode_mask, read_mask
from eagle_spark.storage import join, read_image

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

IMAGES_PER_TASK = 512

_CANDIDATE = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("mask_path", pa.string()),
        ("patient_id", pa.string()),
        ("source", pa.string()),
        ("metadata", pa.map_(pa.string(), pa.string())),
    ]
)
DECODED = pa.schema(
    [
        *_CANDIDATE,
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("pixels", pa.binary()),
        ("mask", pa.binary()),
        ("perceptual_hash", pa.binary()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def candidate_rows(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the candidates as rows, in the columns that `decode_one` reads."""
    return [
        {
            "path": c.uri,
            "label": c.label,
            "mask_path": c.mask_uri,
            "patient_id": c.patient_id,
            "source": c.source,
            "metadata": list(c.metadata.items()) if c.has_metadata else None,
        }
        for c in candidates
    ]


def decode_all(spark: SparkSession, candidates: Sequence[Candidate], size: int) -> DataFrame:
    """Return one decoded or rejected row per candidate, read and decoded on the executors."""
    from pyspark.sql.pandas.types import from_arrow_schema

    table = pa.Table.from_pylist(candidate_rows(candidates), schema=_CANDIDATE)
    tasks = max(spark.sparkContext.defaultParallelism, -(-len(candidates) // IMAGES_PER_TASK))

    def decode(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [{**row, **decode_one(row, size)} for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=DECODED)

    return (
        spark.createDataFrame(table)
        .repartition(tasks)
        .mapInArrow(decode, from_arrow_schema(DECODED))
    )


def stage_decoded(
    spark: SparkSession, candidates: Sequence[Candidate], size: int, staging: str
) -> DataFrame:
    """Decode into the folder `staging`, and return the rows as they stand there.

    Plain Parquet, not packed: a third of what Spark's own cache costs for rows of pixels.
    """
    folder = join(staging, "decoded")
    decode_all(spark, candidates, size).write.option("compression", "none").parquet(folder)
    return spark.read.parquet(folder)


def decode_one(candidate: dict[str, Any], size: int) -> dict[str, Any]:
    """Read and decode one image and its mask; a failure becomes `reason` and `detail`."""
    try:
        data = read_image(candidate["path"], MAX_FILE_BYTES)
        radiograph = read_radiograph(data, size)
        decoded = {
            "image_id": image_id(data),
            "width": radiograph.width,
            "height": radiograph.height,
            "pixels": radiograph.pixels.tobytes(),
            "perceptual_hash": perceptual_hash(radiograph.pixels),
        }
        if candidate["mask_path"] is not None:
            mask = read_mask(
                read_image(candidate["mask_path"], MAX_FILE_BYTES, Reason.MASK_INVALID), size
            )
            decoded["mask"] = encode_mask(mask)
    except ImageRejected as rejected:
        return {"reason": str(rejected.reason), "detail": rejected.detail}
    return decoded
