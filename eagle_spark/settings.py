"""What each job can be told: frozen settings, from the command line and from a TOML file.

A settings class is the one place where an option exists: its fields become `--options`, keys of
`--conf-file` and the text of `--help`. Nothing heavy is imported here, so `--help` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eagle_spark.options import is_local_path, option


def _not_blank(value: Any) -> bool:
    return bool(str(value).strip())


def _warehouse() -> Any:
    return option(
        "folder of the tables eagle.cxr.*",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )


def _model() -> Any:
    return option("model folder", metavar="URI", wanted="a folder URI", check=_not_blank)


def _failure_rate() -> Any:
    return option(
        "publish nothing when a larger share of the listed files is rejected",
        default=1.0,
        metavar="R",
        wanted="a number from 0 to 1",
        check=lambda rate: 0 <= rate <= 1,
    )


def _keep_patient_id() -> Any:
    return option("keep the PatientID of DICOM files as it is, not its SHA-256", default=False)


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """Turn a labelled folder of chest X-rays into the tables `images` and `rejects`."""

    input: str = option(
        "folder with <Class>/images, <Class>/masks and <Class>.metadata.xlsx",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    warehouse: str = _warehouse()
    source: str | None = option(
        "name of this collection; without it the workbook's SOURCE column, or the folder's name",
        default=None,
        metavar="NAME",
        wanted="a name",
        check=_not_blank,
    )
    size: int = option(
        "side of the stored images",
        default=224,
        metavar="PIXELS",
        wanted="a multiple of 32 from 32 to 1024",
        check=lambda size: size % 32 == 0 and 32 <= size <= 1024,
    )
    split: str = option(
        "shares of train, validation and test, whole patients each",
        default="0.7,0.1,0.2",
        metavar="A,B,C",
    )
    split_file: str | None = option(
        "CSV with the header path,split or patient_id,split that says which image of this input is "
        "in train, val or test, instead of --split",
        default=None,
        metavar="FILE",
        wanted="a file URI",
        check=_not_blank,
    )
    seed: int = option(
        "seed of the split",
        default=7,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda seed: seed >= 0,
    )
    max_failure_rate: float = _failure_rate()
    keep_patient_id: bool = _keep_patient_id()


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Train the two-head network on the table `images`, one rank per executor."""

    warehouse: str = _warehouse()
    model: str = option(
        "folder to write the model to; it must not exist",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    ranks: int | None = option(
        "number of training processes; without it one per executor, 2 on one machine",
        default=None,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda ranks: ranks >= 1,
    )
    epochs: int = option(
        "passes over the train split, each image as it is and mirrored",
        default=4,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda epochs: epochs >= 1,
    )
    batch_size: int = option(
        "images per step, over all ranks",
        default=8,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda size: size >= 1,
    )
    weights: str = option(
        "backbone weights: imagenet (Keras' download), a file, or none (random start)",
        default="imagenet",
        metavar="imagenet|PATH|none",
        wanted="imagenet, none or a file URI",
        check=_not_blank,
    )
    seed: int = option(
        "seed of initial weights and shuffling",
        default=7,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda seed: seed >= 0,
    )
    precision: str = option(
        "arithmetic of the frozen backbone that heads are trained on; auto takes int8 where the "
        "driver's CPU has instructions for it",
        default="auto",
        choices=("auto", "int8", "f32"),
    )
    cache_features: str = option(
        "on keeps what the frozen backbone says of each image in the table `features`; off asks it "
        "in every epoch, and mirrors at random",
        default="on",
        choices=("on", "off"),
    )
    feature_budget: float = option(
        "gigabytes that the features of this training may take",
        default=20.0,
        metavar="GB",
        wanted="a number above 0",
        check=lambda budget: budget > 0,
    )
    max_restarts: int = option(
        "how often ranks that died or hang are started again, from the last checkpoint",
        default=3,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda restarts: restarts >= 0,
    )
    resume: bool = option(
        "go on from the last checkpoint of the same training that was stopped", default=False
    )
    overwrite: bool = option("replace the model folder if it exists", default=False)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Score every new image of a folder into the table `predictions`."""

    images: str = option(
        "folder of images, any depth", metavar="URI", wanted="a folder URI", check=_not_blank
    )
    model: str = _model()
    warehouse: str = _warehouse()
    chunk: int = option(
        "images per commit: what a killed run does twice at most",
        default=10_000,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda chunk: chunk >= 1,
    )
    max_failure_rate: float = _failure_rate()
    engine: str = option(
        "auto takes the fastest that passed the model's parity gate and is installed",
        default="auto",
        choices=("auto", "openvino-int8", "openvino-bf16", "litert", "onnx", "openvino", "keras"),
    )
    masks_out: str | None = option(
        "folder to write the masks to, a PNG for each image, in the same tree",
        default=None,
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    retry_rejected: bool = option("score anew what was rejected before", default=False)
    keep_patient_id: bool = _keep_patient_id()


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure a model on a labelled folder of any source, and say how far its card holds there."""

    input: str = option(
        "folder with class folders at any depth: <Class>/images and <Class>/masks, or <Class>/*",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    model: str = _model()
    classes: str | None = option(
        "class of the model that a folder of another name holds, such as Covid19=COVID",
        default=None,
        metavar="FOLDER=CLASS,…",
        wanted="FOLDER=CLASS,…",
        check=_not_blank,
    )


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Write one HTML file that says what a model is worth, and what not."""

    warehouse: str = _warehouse()
    model: str = _model()
    out: str = option(
        "local folder for report.html, figures.json and plots/",
        metavar="DIR",
        wanted="a folder of this machine, no URI",
        check=is_local_path,
    )


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Add the network in formats of other programs to a model folder."""

    model: str = _model()
    format: str = option(
        "which formats",
        default="onnx,litert",
        metavar="onnx,litert",
        wanted="onnx, litert, or both with a comma between",
        check=lambda names: sorted(names.split(",")) in (["onnx"], ["litert"], ["litert", "onnx"]),
    )


@dataclass(frozen=True, kw_only=True)
class ResizeSettings:
    """Write a folder of images again in one size, as it is otherwise."""

    input: str = option("folder of images", metavar="DIR", wanted="a folder", check=_not_blank)
    out: str = option(
        "folder to write; what is right there already is kept",
        metavar="DIR",
        wanted="a folder",
        check=_not_blank,
    )
    size: int = option(
        "side of the images",
        default=224,
        metavar="PIXELS",
        wanted="a whole number from 16 to 4096",
        check=lambda size: 16 <= size <= 4096,
    )


@dataclass(frozen=True, kw_only=True)
class MaintainSettings:
    """Compact the tables of a warehouse, and remove what is older than anybody needs."""

    warehouse: str = _warehouse()
    keep_days: int = option(
        "how long old snapshots, and what killed runs left, are kept",
        default=7,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda days: days >= 1,
    )


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Check whether this environment is fit for the jobs, and say what mends it where not."""

    warehouse: str = _warehouse()
    ranks: int | None = option(
        "number of training processes to find room for; without it one per executor",
        default=None,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda ranks: ranks >= 1,
    )
    weights: str = option(
        "backbone weights that train will be told to take",
        default="imagenet",
        metavar="imagenet|PATH|none",
        wanted="imagenet, none or a file URI",
        check=_not_blank,
    )
