"""`metadata.json` of a model folder: its keys, their types and checks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from reprlib import repr as short_repr
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationError,
)

from eagle_spark.errors import ModelError
from eagle_spark.metrics.calibration import Calibration
from eagle_spark.metrics.drift import Reference
from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.metrics.record import Record
from eagle_spark.model.review import ReviewThresholds

FORMAT_VERSION = 2
METADATA = "metadata.json"
NETWORK = "model.keras"
WEIGHTS = "model.weights.h5"
GOLDEN = "golden.npz"
INTENDED_USE = (
    "Research use only. Not a medical device; not for diagnosis or treatment of patients."
)
MAX_LOCATION_PARTS = 5  # of a wrong value, in an error
_WORDING = {  # of pydantic's errors
    "Input should be greater": "wanted a number greater",
    "Input should be": "wanted",
    r"a valid dictionary( or instance of \w+)?": "an object",
}


class InputContract(Record):
    """The network's input.

    Attributes:
        channels: number of channels.
        dtype: NumPy type of a grey value.
        range: lowest and highest grey value.
        normalisation: where grey values are normalised.
        size: pixels per side.
    """

    channels: int = 1
    dtype: str = "uint8"
    range: Sequence[int] = (0, 255)
    normalisation: str = "in the network"
    size: int = Field(gt=0)


class GateResult(Record):
    """Result of the gate for one engine.

    An engine of full precision is compared with Keras on golden images, see
    `compare_with_reference`; one of lower precision with full precision on the validation split,
    see `compare_outcomes`.

    Attributes:
        passed: whether jobs may use the engine.
        images: number of images of the validation split; None for golden images.
        labels_equal: share of equal labels; the smallest of all batch sizes on golden images.
        probability_difference: largest difference of a probability; None if it is not finite.
        statistics_difference: largest difference of a statistic, as a share of the largest
            statistic; None if it is not finite.
        dice: smallest Dice coefficient of two masks.
        accuracy_difference: accuracy of lower precision minus that of full precision.
        chance: p-value of the test whether more labels are wrong.
        dice_difference: mean Dice coefficient of lower precision minus that of full precision.
        recall_below: numbers of the classes with too low a recall.
        batches: compared batch sizes.
        precision: precision of the engine's arithmetic.
    """

    passed: bool = False
    images: int | None = None
    labels_equal: float | None = None
    probability_difference: float | None = None
    statistics_difference: float | None = None
    dice: float | None = None
    accuracy_difference: float | None = None
    chance: float | None = None
    dice_difference: float | None = None
    recall_below: Sequence[int] = ()
    batches: Sequence[int] = ()
    precision: str = ""


class Training(Record):
    """The training of a model.

    Attributes:
        table: table of the images.
        warehouse: warehouse of the table.
        snapshot_id: snapshot of the table.
        images: split -> class -> number of images.
        sources: source -> class -> number of images of the train split.
        audited: number of images whose splits were audited before training.
        settings: settings of the job `train`.
        backbone: SHA-256 of the backbone.
        temperature: temperature of the class head.
        epochs: figures of each epoch on rank 0; None where a figure cannot be measured.
    """

    table: str | None = None
    warehouse: str | None = None
    snapshot_id: int | None = None
    images: Mapping[str, Mapping[str, int]] = {}
    sources: Mapping[str, Mapping[str, int]] = {}
    audited: int = 0
    settings: Mapping[str, JsonValue] = {}
    backbone: str | None = None
    temperature: float = 1.0
    epochs: Sequence[Mapping[str, int | float | None]] = ()


def _parse_reference(value: object) -> Reference:
    if isinstance(value, Reference):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("wanted an object")
    return Reference.from_dict(value)


def _check_classes(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise ValueError("wanted two or more names")
    return names


def _check_number(value: object) -> float:
    """Return the number itself: `1` and `1.0` give different model ids."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("wanted a number")
    return value


SplitCalibration = Annotated[
    Calibration | None,
    BeforeValidator(lambda value: value or None),
    PlainSerializer(lambda value: value.to_dict() if value else {}),
]
"""Of one split; `{}` in JSON for a split without images."""


class ModelMetadata(Record):
    """The content of `metadata.json`.

    Attributes:
        format_version: version of the format of this file.
        model_id: id, the same for the same weights, classes and input; `seal` sets it.
        intended_use: intended use of the model.
        classes: names of the classes, in the order of the label head.
        input: input of the network.
        mask_threshold: minimum lung probability of a mask's pixels.
        review: thresholds beyond which a prediction needs review.
        engines: engine -> result of its gate.
        versions: package -> version, of the training.
        training: data and settings of the training.
        run_id: run that trained the model.
        left_out: metrics of each source by a class head that was trained without the source.
        metrics: `val` and `test` -> metrics.
        calibration: `val` and `test` -> calibration of confidence; empty for a split without
            images.
        flagged: split -> reason -> share of images that need review.
        reference: distribution of predictions on the validation split.
        digests: file -> SHA-256, of all other files; `seal` sets them.
    """

    format_version: Literal[2] = 2
    model_id: str = ""
    intended_use: str = INTENDED_USE
    classes: Annotated[tuple[str, ...], Strict(False), AfterValidator(_check_classes)]
    input: InputContract
    mask_threshold: Annotated[float, PlainValidator(_check_number)]
    review: ReviewThresholds
    engines: Mapping[str, GateResult]
    versions: Mapping[str, str] = {}
    training: Training = Training()
    run_id: str | None = None
    left_out: Metrics = Metrics()
    metrics: Mapping[str, Metrics] = {}
    calibration: Mapping[str, SplitCalibration] = {}
    flagged: Mapping[str, Mapping[str, float]] = {}
    reference: Annotated[
        Reference, PlainValidator(_parse_reference), PlainSerializer(Reference.to_dict)
    ] = Reference()
    digests: Mapping[str, str] = {}

    @property
    def test_metrics(self) -> Metrics:
        """Metrics of the test split; of no images for a model without them."""
        return self.metrics.get("test", Metrics())


def parse_metadata(raw: bytes, uri: str) -> ModelMetadata:
    """Return the checked content of the `metadata.json` of the model folder `uri`.

    Raises:
        ModelError: names the key that is missing or wrong.
    """
    location = f"{uri}/{METADATA}"
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{location}: not JSON: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else type(values).__name__
    if version != FORMAT_VERSION:
        raise ModelError(f"{location}: format_version must be {FORMAT_VERSION}, got {version}")
    try:
        metadata = ModelMetadata.model_validate(values)
    except ValidationError as error:
        raise ModelError(f"{location}: {_explain(error)}") from error
    for key in ("model_id", "digests"):
        if key not in metadata.model_fields_set:
            raise ModelError(f"{location}: {key} is missing")
    _check_names(metadata.digests, location)
    return metadata


def _explain(error: ValidationError) -> str:
    """Return one line about the first wrong value."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"][:MAX_LOCATION_PARTS]))
    if first["type"] == "missing":
        return f"{key} is missing"
    wanted = first["msg"].removeprefix("Value error, ")
    for pattern, text in _WORDING.items():
        wanted = re.sub(pattern, text, wanted)
    line = f"{key}: {wanted}; got {short_repr(first['input'])}"
    return line if line.isprintable() else repr(line)  # keys may hold anything


def _check_names(names: Iterable[str], location: str) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise ModelError(f"{location}: unsafe file name {name!r}")
    for required in (NETWORK, GOLDEN):
        if required not in names:
            raise ModelError(f"{location}: {required} is missing from digests")
