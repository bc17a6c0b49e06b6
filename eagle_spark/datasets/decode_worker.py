"""Images and masks of a labelled folder, read and decoded on the executors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eagle_spark.datasets.changes import (
    FACT_COLUMNS,
    REJECTION,
    Rejection,
    hash_mask,
    hash_metadata,
)
from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.hashes import compute_image_id, compute_perceptual_hash
from eagle_spark.imaging.mask import encode_mask, read_mask
from eagle_spark.io import join, read_bytes, resolve
from eagle_spark.spark.batches import Worker, tasks_for
from eagle_spark.spark.tasks import run_tasks
from eagle_spark.tables import IMAGES
from eagle_spark.testing.failpoints import IN_A_TASK, failpoint

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

# Of pixels; what a task holds at a time. Memory that a worker takes anew for each file costs time:
# of 32 MB, 6 % of that of an image.
BYTES_PER_FILE = 8 * 2**20
BATCH_IMAGES = 64

_LATER = ("split", "ingested_at", "status", "reason", "run_id")  # known when all are decoded
CANDIDATE = IMAGES.arrow_schema("path", "label", "patient_id", "source", "metadata").append(
    pa.field("mask_path", pa.string())
)
"""Schema of the images to decode."""
DECODED = IMAGES.arrow_schema(
    *(column.name for column in IMAGES.columns if column.name not in _LATER)
)
"""Schema of the staged rows."""
REPORT = pa.schema(
    [
        *IMAGES.arrow_schema(*FACT_COLUMNS, "reason"),
        ("mask_hash", pa.int64()),
        ("metadata_hash", pa.int64()),
        ("staged", pa.string()),
        ("row", pa.int32()),
    ]
)
"""Schema of the report of a task, a row for each candidate.

An accepted one is row `row` of the file `staged` in the staging folder; a rejected one has a
`reason`.
"""


class CandidateRow(TypedDict):
    """A row of `CANDIDATE`."""

    path: str
    label: str
    mask_path: str | None
    patient_id: str | None
    source: str | None
    metadata: list[tuple[str, str]] | None


def candidate_rows(candidates: Sequence[Candidate]) -> list[CandidateRow]:
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


@dataclass(frozen=True)
class DecodeWorker:
    """Decodes candidates and writes the accepted ones as Parquet files below `staging`.

    Only files that a finished task reports count: what a failed one left is never read.
    """

    size: int
    staging: str
    keep_patient_id: bool = False

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield rows of `REPORT`, in the order of the candidates."""
        full = max(1, BYTES_PER_FILE // self.size**2)
        rows: list[dict[str, Any]] = []
        for batch in batches:
            failpoint(IN_A_TASK)
            for candidate in batch.to_pylist():
                found = decode_one(candidate, self.size, self.keep_patient_id)
                rows.append({**candidate, **found})
                if len(rows) >= full:
                    yield self._write(rows)
                    rows = []
        if rows:
            yield self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        accepted = [row for row in rows if "reason" not in row]
        if accepted:
            name = f"{uuid4().hex}.parquet"
            buffer = pa.BufferOutputStream()
            table = pa.Table.from_pylist(accepted, schema=DECODED)
            pq.write_table(table, buffer, compression="none", use_dictionary=False)
            storage, path = resolve(join(self.staging, name))
            storage.create(path, buffer.getvalue().to_pybytes())
            for number, row in enumerate(accepted):
                row |= {
                    "mask_hash": hash_mask(row.get("mask")),
                    "metadata_hash": hash_metadata(row["metadata"]),
                    "staged": name,
                    "row": number,
                }
        return pa.RecordBatch.from_pylist(rows, schema=REPORT)


def decode_candidates(
    spark: SparkSession, candidates: Sequence[Candidate], worker: Worker
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Decode candidates on the executors.

    Args:
        spark: session.
        candidates: images to decode.
        worker: a `DecodeWorker`; is called in each task.

    Returns:
        The facts of the decoded images, columns of `REPORT`, and the rejections of the others; both
        in the order of the candidates.
    """
    parts = run_tasks(
        spark.sparkContext, share_candidates(spark, candidates), partial(decode_share, worker)
    )
    report = pa.concat_tables([REPORT.empty_table(), *parts])
    is_accepted = report["reason"].is_null()
    rejected = report.filter(pc.invert(is_accepted)).select(REJECTION.names)
    broken = [Rejection(**row) for row in rejected.to_pylist()]
    # Whole numbers with a null would become float.
    return report.filter(is_accepted).drop_columns("reason").to_pandas(), broken


def share_candidates(spark: SparkSession, candidates: Sequence[Candidate]) -> list[pa.Table]:
    """Return the candidates as rows, shared out over tasks."""
    count = len(candidates)
    tasks = tasks_for(spark, count)
    ends = [count * task // tasks for task in range(tasks + 1)]
    return [
        # A slice of one table would be pickled with the whole of it.
        pa.Table.from_pylist(candidate_rows(candidates[start:end]), schema=CANDIDATE)
        for start, end in pairwise(ends)
        if start < end
    ]


def decode_share(worker: Worker, candidates: pa.Table) -> pa.Table:
    """Return the report, rows of `REPORT`, of a worker on the candidates of a task."""
    return pa.Table.from_batches(worker(candidates.to_batches(max_chunksize=BATCH_IMAGES)), REPORT)


def decode_one(
    candidate: CandidateRow, size: int, keep_patient_id: bool = False
) -> dict[str, object]:
    """Read and decode one image and its mask; a failure becomes `reason` and `detail`.

    A DICOM file's patient is the image's where the workbook names none.
    """
    try:
        data = read_bytes(candidate["path"], MAX_FILE_BYTES)
        radiograph = decode_image(data, size, keep_patient_id=keep_patient_id)
        decoded: dict[str, object] = {
            "image_id": compute_image_id(data),
            "width": radiograph.width,
            "height": radiograph.height,
            "pixels": radiograph.pixels.tobytes(),
            "perceptual_hash": compute_perceptual_hash(radiograph.pixels),
            "dicom": radiograph.dicom,
            "detail": radiograph.detail,
        }
        if radiograph.dicom and candidate["patient_id"] is None:
            decoded["patient_id"] = radiograph.dicom["patient_id"]
        if candidate["mask_path"] is not None:
            mask = read_mask(
                read_bytes(candidate["mask_path"], MAX_FILE_BYTES, Reason.MASK_INVALID), size
            )
            decoded["mask"] = encode_mask(mask)
    except ImageRejectedError as rejected:
        return {"reason": str(rejected.reason), "detail": rejected.detail}
    return decoded
