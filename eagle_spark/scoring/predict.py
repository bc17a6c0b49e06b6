"""From bytes to prediction rows: read, decode, predict, encode the mask."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejected
from eagle_spark.imaging.decode import MAX_FILE_BYTES, Radiograph, read_radiograph
from eagle_spark.imaging.hashes import image_id
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io import read_image
from eagle_spark.io.archives import Archives
from eagle_spark.model.answer import Answer, answers, with_image_flags
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import Engine, load_engine
from eagle_spark.scoring.rows import PREDICTION, SAME
from eagle_spark.testing.failpoints import IN_A_TASK, reached

Row = dict[str, Any]


class Shared(Protocol):
    """Something of the driver that reaches every worker: a Spark broadcast."""

    @property
    def value(self) -> NDArray[np.uint64]: ...


class Clock(Protocol):
    """A sum over all workers: a Spark accumulator of seconds."""

    def add(self, seconds: float) -> None: ...


# `write` is the time in which a worker waits until Spark, which writes beside it, has its rows.
STAGES = ("read", "decode", "infer", "encode", "write")


@dataclass(frozen=True)
class Predictor:
    """What every worker needs to score: where the model is and how to run it. Picklable.

    Attributes:
        keep_patient_id: as in `read_radiograph`.
        known: sorted `key_of` of the images that the model has published rows of.
        clocks: one for each of `STAGES`.
    """

    model: str
    model_id: str
    engine: str
    threads: int
    run_id: str
    keep_patient_id: bool = False
    known: Shared | None = None
    clocks: Mapping[str, Clock] = field(default_factory=dict)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score batches of listed files as `read_listing` gives them."""
        seen: dict[str, Row] = {}
        with Archives() as archives:
            for batch in batches:
                bundle, engine = load_model(self.model, self.model_id, self.engine, self.threads)
                reached(IN_A_TASK)
                rows = self.score(batch.to_pylist(), bundle, engine, seen, archives)
                scored = pa.RecordBatch.from_pylist(rows, schema=PREDICTION)
                with self._timed("write"):
                    yield scored

    def score(
        self,
        files: Sequence[Row],
        bundle: Bundle,
        engine: Engine,
        seen: dict[str, Row],
        archives: Archives,
    ) -> list[Row]:
        """Return one row per file, in order; a file that fails takes nobody with it.

        Args:
            seen: image id -> the columns that the model gives it; grows by what is asked here.
        """
        shared = {"model_id": self.model_id, "run_id": self.run_id}
        rows: list[Row] = []
        decoded: dict[str, Radiograph] = {}
        for file in files:
            row = {**file, **shared}
            del row["archive"], row["position"]
            rows.append(row)
            try:
                with self._timed("read"):
                    data = read_listed(file, archives)
                    name = row["image_id"] = image_id(data)
                if self._is_known(name):
                    row["status"] = SAME
                elif name not in seen and name not in decoded:
                    with self._timed("decode"):
                        decoded[name] = read_radiograph(
                            data, bundle.size, keep_patient_id=self.keep_patient_id
                        )
            except ImageRejected as rejected:
                row |= {
                    "status": "rejected",
                    "reason": str(rejected.reason),
                    "detail": rejected.detail,
                }
        if decoded:
            with self._timed("infer"):
                pixels = np.stack([one.pixels for one in decoded.values()])
                outputs = engine.predict(pixels)
            with self._timed("encode"):
                told = answers(bundle, pixels, outputs)
                for (name, one), answer in zip(decoded.items(), told, strict=True):
                    seen[name] = prediction(with_image_flags(answer, one.dicom)) | {
                        "engine": self.engine,
                        "dicom": one.dicom,
                        "detail": one.detail,
                    }
        now = datetime.now(timezone.utc)
        for row in rows:
            if "status" not in row:
                row |= seen[row["image_id"]]
            row["scored_at"] = now
        return rows

    def _is_known(self, name: str) -> bool:
        if self.known is None:
            return False
        keys, key = self.known.value, key_of(name)
        place = int(np.searchsorted(keys, key))
        return place < len(keys) and bool(keys[place] == key)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if clock := self.clocks.get(stage):
                clock.add(time.perf_counter() - started)


def read_listed(file: Row, archives: Archives) -> bytes:
    """Return the bytes of a listed file, which may be a member of an archive.

    Raises:
        ImageRejected: when it cannot be read.
    """
    if file["archive"] is None:
        return read_image(file["path"], MAX_FILE_BYTES)
    return archives.read(file["archive"], file["position"], file["file_length"], MAX_FILE_BYTES)


def key_of(name: str) -> np.uint64:
    """Return the first 64 bits of an image id."""
    key: np.uint64 = np.uint64(int(name[:16], 16))
    return key


def prediction(answer: Answer) -> dict[str, Any]:
    """Return the columns that what the model says of an image gives."""
    return {
        "status": "scored",
        "label": answer.label,
        "confidence": answer.confidence,
        "probabilities": list(answer.probabilities.items()),
        "needs_review": bool(answer.reasons),
        "review_reasons": list(answer.reasons),
        "novelty": answer.novelty,
        "mask": encode_mask(answer.lungs),
        "lung_area": answer.lung_area,
    }


@lru_cache(maxsize=1)
def load_model(model: str, model_id: str, engine: str, threads: int) -> tuple[Bundle, Engine]:
    """Open the model, once a process; the folder must still hold that of `model_id`."""
    bundle = open_bundle(model, expected_id=model_id)
    return bundle, load_engine(bundle, engine, threads)
