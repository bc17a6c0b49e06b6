"""The settings of each job and command: typed, checked and frozen.

A settings class is the one place where an option is defined: its fields become parameters in
Python, options of the command line, variables `EAGLE_...` of the environment, keys of a TOML file,
and the text of `--help`. Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from eagle_spark.errors import SettingsError


class Settings(BaseModel):
    """Base of all settings: a wrong value raises one error that names the parameter."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)

    def __init__(self, **values: Any) -> None:  # of any type: they are checked here
        """Check the values.

        Raises:
            SettingsError: names the parameter, what was wanted and what came.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(explain(type(self), error)) from None


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """Return one line about the first wrong value; names of parameters are in backticks."""
    errors = error.errors()
    missing = [f"`{entry['loc'][0]}`" for entry in errors if entry["type"] == "missing"]
    if missing:
        return f"missing: {', '.join(missing)}"
    name, value = str(errors[0]["loc"][0]), errors[0]["input"]
    if name not in kind.model_fields:
        return f"unknown parameter {name!r}; known are {', '.join(kind.model_fields)}"
    return f"`{name}`: wanted {_wanted(kind, name)}; got {value!r}"


def _wanted(kind: type[BaseModel], name: str) -> str:
    field = kind.model_fields[name]
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "wanted" in extra:
        return str(extra["wanted"])
    return ", ".join(map(str, getattr(field.annotation, "__args__", ()))) or "another value"


def option(
    default: Any = PydanticUndefined,
    *,
    help: str,
    wanted: str | None = None,
    metavar: str | None = None,
    **bounds: float,
) -> Any:
    """Return a field.

    Args:
        default: of an option that need not be given.
        help: text of `--help`.
        wanted: the accepted values, for the error.
        metavar: name of the value in `--help`.
        bounds: `ge`, `gt`, `le`, `multiple_of`.
    """
    extra = {"wanted": wanted, "metavar": metavar}
    given = {name: value for name, value in extra.items() if value is not None}
    return Field(default, description=help, json_schema_extra=given, **bounds)  # type: ignore[call-overload]


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value")
    return value


def _reject_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("blank")
    return value


def is_local_path(text: str) -> bool:
    """Whether a text is a path of this machine, not a URI, which `Path` would accept too."""
    return bool(text.strip()) and "://" not in text


def _reject_uri(value: str) -> str:
    if not is_local_path(value):
        raise ValueError("not a path")
    return value


Integer = Annotated[int, BeforeValidator(_reject_bool)]
Number = Annotated[float, BeforeValidator(_reject_bool)]
Text = Annotated[str, AfterValidator(_reject_blank)]
LocalPath = Annotated[str, AfterValidator(_reject_uri)]
Writer = Literal["auto", "files", "spark"]

_FROM_1, _FROM_0 = "a whole number from 1 up", "a whole number from 0 up"
_FOLDER = "a folder of this machine, no URI"


def uri_option(help: str, default: Any = PydanticUndefined) -> Any:
    """Return a field that holds the URI of a folder."""
    return option(default, help=help, metavar="URI", wanted="a folder URI")


def local_option(help: str, default: Any = PydanticUndefined) -> Any:
    """Return a field that holds a path of this machine."""
    return option(default, help=help, metavar="PATH", wanted="a path of this machine, no URI")


def count_option(default: Any, help: str, *, ge: int = 1) -> Any:
    """Return a field that holds a whole number, from 1 up or from `ge`."""
    return option(default, help=help, metavar="N", wanted=_FROM_1 if ge else _FROM_0, ge=ge)


def _flag(help: str) -> Any:
    return option(False, help=help, wanted="true or false")


def warehouse_option() -> Any:
    """Return the field `warehouse`."""
    return uri_option("folder of the tables eagle.cxr.*")


def model_option() -> Any:
    """Return the field `model`."""
    return uri_option("model folder")


def _failure_rate() -> Any:
    return option(
        1.0,
        help="publish nothing if a larger share of the listed files is rejected",
        metavar="R",
        wanted="a number from 0 to 1",
        ge=0,
        le=1,
    )


def _writer() -> Any:
    return option(
        "auto",
        help="writer of the table's data files. files: the Python workers; spark: Spark, at a "
        "lower rate; auto: files, or spark where the site encrypts, partitions or places the "
        "table in its own way",
    )


def _keep_patient_id() -> Any:
    return _flag("store the PatientID of DICOM files instead of its SHA-256")


def _weights(help: str) -> Any:
    return option(
        "imagenet",
        help=help,
        metavar="imagenet|PATH|none",
        wanted="imagenet, none or a file URI",
    )


class PreprocessSettings(Settings):
    """Turn a labelled folder of chest X-rays into the table `images`."""

    input: Text = uri_option("folder with <Class>/images, <Class>/masks and <Class>.metadata.xlsx")
    warehouse: Text = warehouse_option()
    source: Text | None = option(
        None,
        help="name of this collection; without it the workbook's SOURCE column, or the folder name",
        metavar="NAME",
        wanted="a name",
    )
    size: Integer = option(
        224,
        help="side of the stored images",
        metavar="PIXELS",
        wanted="a multiple of 32 from 32 to 1024",
        ge=32,
        le=1024,
        multiple_of=32,
    )
    split: str = option(
        "0.7,0.1,0.2",
        help="shares of train, validation and test; all images of a patient are in one split",
        metavar="A,B,C",
        wanted="three numbers",
    )
    split_file: Text | None = option(
        None,
        help="CSV with the header path,split or patient_id,split that assigns each image of this "
        "input to train, val or test, instead of --split",
        metavar="FILE",
        wanted="a file URI",
    )
    seed: Integer = count_option(7, "seed of the split", ge=0)
    writer: Writer = _writer()
    max_failure_rate: Number = _failure_rate()
    keep_patient_id: bool = _keep_patient_id()


class TrainSettings(Settings):
    """Train the two-head network on the table `images`, one rank per executor."""

    warehouse: Text = warehouse_option()
    model: Text = uri_option("folder to write the model to; it must not exist, unless --overwrite")
    ranks: Integer | None = count_option(
        None, "number of training processes; default: one per executor, 2 on one machine"
    )
    epochs: Integer = count_option(
        4, "passes over the train split, each image original and mirrored"
    )
    batch_size: Integer = count_option(
        8, "images per step, over all ranks; a multiple of twice the ranks"
    )
    weights: Text = _weights(
        "backbone weights: imagenet (Keras' download), a file, or none (random start)"
    )
    seed: Integer = count_option(7, "seed of initial weights and shuffling", ge=0)
    precision: Literal["auto", "int8", "f32"] = option(
        "auto",
        help="arithmetic of the frozen backbone; auto: int8 if the driver's CPU has instructions "
        "for it",
    )
    cache_features: Literal["on", "off"] = option(
        "on",
        help="on: cache backbone features in the table `features`; off: recompute them every "
        "epoch and mirror at random",
    )
    feature_budget: Number = option(
        20.0,
        help="gigabytes that the features of this training may take",
        metavar="GB",
        wanted="a number above 0",
        gt=0,
    )
    max_restarts: Integer = count_option(
        3, "restarts of ranks that died or hang, from the last checkpoint", ge=0
    )
    resume: bool = _flag("continue from the last checkpoint of the same training")
    overwrite: bool = _flag("replace the model folder if it exists")


class ScoreSettings(Settings):
    """Predict every new image of a folder into the table `predictions`."""

    images: Text = uri_option("folder of images, any depth, or one .zip, .tar, .tar.gz or .tgz")
    model: Text = model_option()
    warehouse: Text = warehouse_option()
    chunk: Integer = count_option(
        10_000, "Images per commit. An interrupted run repeats at most twice this many."
    )
    writer: Writer = _writer()
    max_failure_rate: Number = _failure_rate()
    engine: Literal[
        "auto", "openvino-int8", "openvino-bf16", "litert", "onnx", "openvino", "keras"
    ] = option(
        "auto",
        help="auto: the fastest that passed the model's parity gate and is installed",
    )
    masks_out: Text | None = uri_option(
        "folder for the masks, a PNG per image, in the same tree", default=None
    )
    retry_rejected: bool = _flag("process rejected files again")
    keep_patient_id: bool = _keep_patient_id()
    plan: bool = _flag(
        "count the new images and estimate the seconds of the run; score nothing, change no table"
    )


class EvaluateSettings(Settings):
    """Measure a model on a labelled folder of any source and compare it with its model card."""

    input: Text = uri_option(
        "folder with class folders at any depth: <Class>/images and <Class>/masks, or <Class>/*"
    )
    model: Text = model_option()
    classes: Text | None = option(
        None,
        help="class of the model for a folder of another name, such as Covid19=COVID",
        metavar="FOLDER=CLASS,…",
        wanted="FOLDER=CLASS,…",
    )


class ReportSettings(Settings):
    """Write one HTML file with the data, metrics, calibration and limits of a model."""

    warehouse: Text = warehouse_option()
    model: Text = model_option()
    out: LocalPath = option(
        help="local folder for report.html, figures.json and plots/", metavar="DIR", wanted=_FOLDER
    )


class MaintainSettings(Settings):
    """Compact small files, expire old snapshots and delete leftovers of killed runs."""

    warehouse: Text = warehouse_option()
    keep_days: Integer = count_option(7, "age from which snapshots and leftovers are deleted, days")


class DoctorSettings(Settings):
    """Check this environment for the jobs, and print how to fix what fails."""

    warehouse: Text = warehouse_option()
    ranks: Integer | None = count_option(
        None, "number of training processes to find slots for; default: one per executor"
    )
    weights: Text = _weights("backbone weights that train will use")


class ExportSettings(Settings):
    """Add the network as ONNX and LiteRT to a model folder."""

    model: Text = model_option()
    format: Literal["onnx,litert", "litert,onnx", "onnx", "litert"] = option(
        "onnx,litert",
        help="formats",
        metavar="onnx,litert",
        wanted="onnx, litert, or both with a comma between",
    )


class ResizeSettings(Settings):
    """Write a copy of a folder of images, all of one size."""

    input: Text = option(help="folder of images", metavar="DIR", wanted="a folder")
    out: Text = option(
        help="folder to write; files that are up to date are not written again",
        metavar="DIR",
        wanted="a folder",
    )
    size: Integer = option(
        224,
        help="side of the images",
        metavar="PIXELS",
        wanted="a whole number from 16 to 4096",
        ge=16,
        le=4096,
    )
