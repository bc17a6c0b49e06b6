"""Listed files to rows of `predictions`: read, decode, predict, encode the mask."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Protocol

import numpy as np
import pyarrow as pa

from eagle_spark.errors import ImageRejectedError
from eagle_spark.imaging.decode import MAX_FILE_BYTES, DecodedImage, decode_image
from eagle_spark.imaging.hashes import compute_image_id
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io import read_bytes
from eagle_spark.io.archives import Archives
from eagle_spark.model.predictor import (
    SCORED,
    Model,
    ModelRef,
    Prediction,
    add_image,
    decode_outputs,
    reject,
)
from eagle_spark.scoring.dedupe import STATUS_DUPLICATE, Broadcast, is_scored
from eagle_spark.scoring.listing import ListedFile
from eagle_spark.tables import PREDICTIONS
from eagle_spark.testing.failpoints import IN_A_TASK, failpoint

# `write`: a data file is written and read back; where Spark writes beside the worker, the time
# until it took the rows.
STAGES = ("read", "decode", "infer", "encode", "write")
PREDICTION_SCHEMA = PREDICTIONS.arrow_schema()

Columns = Mapping[str, object]


class Clock(Protocol):
    """A sum of seconds over all workers: a Spark accumulator."""

    @property
    def value(self) -> float: ...

    def add(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class ScoreWorker:
    """Turns batches of listed files into batches of `predictions`. Picklable.

    Attributes:
        model: loaded once per process.
        run_id: of the run that writes the rows.
        keep_patient_id: as in `decode_image`.
        scored_hashes: of images with a published row; they become `STATUS_DUPLICATE`.
        clocks: one per stage of `STAGES`.
    """

    model: ModelRef
    run_id: str
    keep_patient_id: bool = False
    scored_hashes: Broadcast | None = None
    clocks: Mapping[str, Clock] = field(default_factory=dict)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one batch of rows per batch of `LISTING`."""
        cache: dict[str, Columns] = {}
        with Archives() as archives:
            for batch in batches:
                model = self.model.load()
                failpoint(IN_A_TASK)
                files = batch.to_pylist()
                rows = self._rows(files, self._predict(files, model, archives, cache))
                with self._timed("write"):
                    yield rows

    def _predict(
        self,
        files: Sequence[ListedFile],
        model: Model,
        archives: Archives,
        cache: dict[str, Columns],
    ) -> list[Columns]:
        """Return the prediction of each file, in order; a batch is one call of the engine.

        Args:
            cache: image id to prediction, with the mask encoded; grows by the images of the batch.
        """
        predictions: list[Columns | None] = []
        image_ids: list[str] = []
        images: dict[str, DecodedImage] = {}
        for file in files:
            image_id: str | None = None
            prediction: Columns | None = None
            try:
                with self._timed("read"):
                    data = read_listed(file, archives)
                    image_id = compute_image_id(data)
                if is_scored(image_id, self.scored_hashes):
                    prediction = prediction_columns(Prediction(STATUS_DUPLICATE, image_id))
                elif image_id not in cache and image_id not in images:
                    with self._timed("decode"):
                        images[image_id] = decode_image(
                            data, model.size, keep_patient_id=self.keep_patient_id
                        )
            except ImageRejectedError as error:
                prediction = prediction_columns(reject(error, image_id))
            predictions.append(prediction)
            image_ids.append(image_id or "")
        if images:
            with self._timed("infer"):
                pixels = np.stack([image.pixels for image in images.values()])
                outputs = model.compute_outputs(pixels)
            with self._timed("encode"):
                decoded = decode_outputs(model.bundle, pixels, outputs)
                for (name, image), computed in zip(images.items(), decoded, strict=True):
                    cache[name] = prediction_columns(add_image(computed, name, image))
        return [
            prediction or cache[name]
            for prediction, name in zip(predictions, image_ids, strict=True)
        ]

    def _rows(self, files: Sequence[ListedFile], predictions: Sequence[Columns]) -> pa.RecordBatch:
        now = datetime.now(timezone.utc)
        rows = [
            {
                **prediction,
                "path": file["path"],
                "file_length": file["file_length"],
                "file_modified": file["file_modified"],
                "model_id": self.model.model_id,
                "engine": self.model.engine if prediction["status"] == SCORED else None,
                "run_id": self.run_id,
                "scored_at": now,
            }
            for file, prediction in zip(files, predictions, strict=True)
        ]
        # Not `from_pylist`: it writes nulls for a column that the rows lack.
        columns = {name: [row[name] for row in rows] for name in PREDICTION_SCHEMA.names}
        return pa.RecordBatch.from_pydict(columns, schema=PREDICTION_SCHEMA)

    def _timed(self, stage: str) -> AbstractContextManager[None]:
        return timed(self.clocks.get(stage))


@contextmanager
def timed(clock: Clock | None) -> Iterator[None]:
    """Add the seconds of the block to a clock."""
    started = time.perf_counter()
    try:
        yield
    finally:
        if clock:
            clock.add(time.perf_counter() - started)


def read_listed(file: ListedFile, archives: Archives) -> bytes:
    """Return the bytes of a listed file or archive member.

    Raises:
        ImageRejectedError: when it cannot be read.
    """
    archive, position = file["archive"], file["position"]
    if archive is None or position is None:
        return read_bytes(file["path"], MAX_FILE_BYTES)
    return archives.read(archive, position, file["file_length"], MAX_FILE_BYTES)


def prediction_columns(prediction: Prediction) -> Columns:
    """Return the columns of `predictions` that a prediction fills: one for each of its attributes.

    The mask becomes a PNG. Without a mask, review reasons are None, not empty.
    """
    mask = prediction.mask
    return {
        **{one.name: getattr(prediction, one.name) for one in fields(prediction)},
        "probabilities": list(prediction.probabilities.items()) or None,
        "review_reasons": None if mask is None else list(prediction.review_reasons),
        "mask": None if mask is None else encode_mask(mask),
    }
