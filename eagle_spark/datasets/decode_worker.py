"""Images and masks of a labelled folder, read and decoded on the executors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.datasets.changes import Rejection
from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.hashes import compute_image_id, compute_perceptual_hash
from eagle_spark.imaging.mask import encode_mask, read_mask
from eagle_spark.io import join, read_bytes, resolve
from eagle_spark.spark.batches import Worker, map_batches, tasks_for
from eagle_spark.tables import IMAGES
from eagle_spark.testing.failpoints import IN_A_TASK, failpoint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Of pixels; what a task holds at a time. Memory that a worker takes anew for each file costs time:
# of 32 MB, 6 % of that of an image.
BYTES_PER_FILE = 8 * 2**20

_MASK_PATH = pa.field("mask_path", pa.string())
_LATER = ("split", "ingested_at", "status", "reason", "run_id")  # known when all are decoded
_CANDIDATE = IMAGES.arrow_schema("path", "label", "patient_id", "source", "metadata").append(
    _MASK_PATH
)
DECODED = IMAGES.arrow_schema(
    *(column.name for column in IMAGES.columns if column.name not in _LATER)
).append(_MASK_PATH)
_REPORT = IMAGES.arrow_schema("path", "label", "source", "reason", "detail").append(
    pa.field("staged", pa.string())
)


class CandidateRow(TypedDict):
    """A row of `_CANDIDATE`."""

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

    The worker writes its pixels itself; through Spark's own writer they would cost half as much
    again. Only files that a finished task reports count: what a failed one left is never read.
    """

    size: int
    staging: str
    keep_patient_id: bool = False

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield a row (`staged`) per file written, and one per reject."""
        full = max(1, BYTES_PER_FILE // self.size**2)
        rows: list[dict[str, object]] = []
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

    def _write(self, rows: Sequence[dict[str, object]]) -> pa.RecordBatch:
        accepted = [row for row in rows if "reason" not in row]
        report = [row for row in rows if "reason" in row]
        if accepted:
            uri = join(self.staging, f"{uuid4().hex}.parquet")
            buffer = pa.BufferOutputStream()
            table = pa.Table.from_pylist(accepted, schema=DECODED)
            pq.write_table(table, buffer, compression="none", use_dictionary=False)
            storage, path = resolve(uri)
            storage.write(path, buffer.getvalue().to_pybytes())
            report.append({"staged": uri})
        return pa.RecordBatch.from_pylist(report, schema=_REPORT)


def decode_candidates(
    spark: SparkSession, candidates: Sequence[Candidate], worker: Worker
) -> tuple[DataFrame, list[Rejection]]:
    """Decode candidates on the executors.

    Args:
        spark: session.
        candidates: images to decode.
        worker: a `DecodeWorker`; is called in each task.

    Returns:
        The staged rows of the decoded images, and the rejections of the others.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    report = map_batches(distribute(spark, candidates), worker, _REPORT).collect()
    staged = sorted(row.staged for row in report if row.staged)
    schema = from_arrow_schema(DECODED)
    decoded = (
        spark.read.schema(schema).parquet(*staged) if staged else spark.createDataFrame([], schema)
    )
    broken = [
        Rejection(row.path, row.label, row.source, row.reason, row.detail)
        for row in report
        if not row.staged
    ]
    return decoded, broken


def distribute(spark: SparkSession, candidates: Sequence[Candidate]) -> DataFrame:
    """Return the candidates as rows, shared out over tasks."""
    table = pa.Table.from_pylist(candidate_rows(candidates), schema=_CANDIDATE)
    return spark.createDataFrame(table).repartition(tasks_for(spark, len(candidates)))


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
