"""What each job can be told: frozen settings, from the command line and from a TOML file.

A settings class is the one place where an option exists: its fields become `--options`, keys of
`--conf-file` and the text of `--help`. Nothing heavy is imported here, so `--help` is instant.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from eagle_spark.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S")
Check = Callable[[Any], bool]
_REQUIRED: Any = dataclasses.MISSING


def _option(
    text: str,
    *,
    default: Any = _REQUIRED,
    metavar: str | None = None,
    wanted: str = "",
    check: Check | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    metadata = {
        "help": text,
        "metavar": metavar,
        "wanted": wanted,
        "check": check,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


def _not_blank(value: Any) -> bool:
    return bool(str(value).strip())


def _warehouse() -> Any:
    return _option(
        "folder of the tables eagle.cxr.*",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )


def _failure_rate() -> Any:
    return _option(
        "publish nothing when a larger share of the listed files is rejected",
        default=1.0,
        metavar="R",
        wanted="a number from 0 to 1",
        check=lambda rate: 0 <= rate <= 1,
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """Turn a labelled folder of chest X-rays into the tables `images` and `rejects`."""

    input: str = _option(
        "folder with <Class>/images, <Class>/masks and <Class>.metadata.xlsx",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    warehouse: str = _warehouse()
    source: str | None = _option(
        "name of this collection; without it the workbook's SOURCE column, or the folder's name",
        default=None,
        metavar="NAME",
        wanted="a name",
        check=_not_blank,
    )
    size: int = _option(
        "side of the stored images",
        default=224,
        metavar="PIXELS",
        wanted="a multiple of 32 from 32 to 1024",
        check=lambda size: size % 32 == 0 and 32 <= size <= 1024,
    )
    split: str = _option(
        "shares of train, validation and test, whole patients each",
        default="0.7,0.1,0.2",
        metavar="A,B,C",
    )
    split_file: str | None = _option(
        "CSV with the header path,split or patient_id,split that says which image of this input is "
        "in train, val or test, instead of --split",
        default=None,
        metavar="FILE",
        wanted="a file URI",
        check=_not_blank,
    )
    seed: int = _option(
        "seed of the split",
        default=7,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda seed: seed >= 0,
    )
    max_failure_rate: float = _failure_rate()


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Train the two-head network on the table `images`, one rank per executor."""

    warehouse: str = _warehouse()
    model: str = _option(
        "folder to write the model to; it must not exist",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    ranks: int | None = _option(
        "number of training processes; without it one per executor, 2 on one machine",
        default=None,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda ranks: ranks >= 1,
    )
    epochs: int = _option(
        "passes over the train split, each image as it is and mirrored",
        default=4,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda epochs: epochs >= 1,
    )
    batch_size: int = _option(
        "images per step, over all ranks",
        default=8,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda size: size >= 1,
    )
    weights: str = _option(
        "backbone weights: imagenet (Keras' download), a file, or none (random start)",
        default="imagenet",
        metavar="imagenet|PATH|none",
        wanted="imagenet, none or a file URI",
        check=_not_blank,
    )
    seed: int = _option(
        "seed of initial weights and shuffling",
        default=7,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda seed: seed >= 0,
    )
    precision: str = _option(
        "arithmetic of the frozen backbone that heads are trained on; auto takes int8 where the "
        "driver's CPU has instructions for it",
        default="auto",
        choices=("auto", "int8", "f32"),
    )
    cache_features: str = _option(
        "on keeps what the frozen backbone says of each image in the table `features`; off asks it "
        "in every epoch, and mirrors at random",
        default="on",
        choices=("on", "off"),
    )
    feature_budget: float = _option(
        "gigabytes that the features of this training may take",
        default=20.0,
        metavar="GB",
        wanted="a number above 0",
        check=lambda budget: budget > 0,
    )
    max_restarts: int = _option(
        "how often ranks that died or hang are started again, from the last checkpoint",
        default=3,
        metavar="N",
        wanted="a whole number from 0 up",
        check=lambda restarts: restarts >= 0,
    )
    resume: bool = _option(
        "go on from the last checkpoint of the same training that was stopped", default=False
    )
    overwrite: bool = _option("replace the model folder if it exists", default=False)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Score every new image of a folder into the table `predictions`."""

    images: str = _option(
        "folder of images, any depth", metavar="URI", wanted="a folder URI", check=_not_blank
    )
    model: str = _option("model folder", metavar="URI", wanted="a folder URI", check=_not_blank)
    warehouse: str = _warehouse()
    chunk: int = _option(
        "images per commit: what a killed run does twice at most",
        default=10_000,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda chunk: chunk >= 1,
    )
    max_failure_rate: float = _failure_rate()
    engine: str = _option(
        "auto takes the fastest that passed the model's parity gate and is installed",
        default="auto",
        choices=("auto", "openvino-int8", "openvino-bf16", "litert", "onnx", "openvino", "keras"),
    )
    masks_out: str | None = _option(
        "folder to write the masks to, a PNG for each image, in the same tree",
        default=None,
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    retry_rejected: bool = _option("score anew what was rejected before", default=False)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure a model on a labelled folder of any source, and say how far its card holds there."""

    input: str = _option(
        "folder with class folders at any depth: <Class>/images and <Class>/masks, or <Class>/*",
        metavar="URI",
        wanted="a folder URI",
        check=_not_blank,
    )
    model: str = _option("model folder", metavar="URI", wanted="a folder URI", check=_not_blank)
    classes: str | None = _option(
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
    model: str = _option("model folder", metavar="URI", wanted="a folder URI", check=_not_blank)
    out: str = _option(
        "local folder for report.html, figures.json and plots/",
        metavar="DIR",
        wanted="a folder",
        check=_not_blank,
    )


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Add the network in formats of other programs to a model folder."""

    model: str = _option("model folder", metavar="URI", wanted="a folder URI", check=_not_blank)
    format: str = _option(
        "which formats",
        default="onnx,litert",
        metavar="onnx,litert",
        wanted="onnx, litert, or both with a comma between",
        check=lambda names: sorted(names.split(",")) in (["onnx"], ["litert"], ["litert", "onnx"]),
    )


@dataclass(frozen=True, kw_only=True)
class ResizeSettings:
    """Write a folder of images again in one size, as it is otherwise."""

    input: str = _option("folder of images", metavar="DIR", wanted="a folder", check=_not_blank)
    out: str = _option(
        "folder to write; what is right there already is kept",
        metavar="DIR",
        wanted="a folder",
        check=_not_blank,
    )
    size: int = _option(
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
    keep_days: int = _option(
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
    ranks: int | None = _option(
        "number of training processes to find room for; without it one per executor",
        default=None,
        metavar="N",
        wanted="a whole number from 1 up",
        check=lambda ranks: ranks >= 1,
    )
    weights: str = _option(
        "backbone weights that train will be told to take",
        default="imagenet",
        metavar="imagenet|PATH|none",
        wanted="imagenet, none or a file URI",
        check=_not_blank,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see --help)")


def parse_settings(kind: type[S], argv: Sequence[str] | None = None) -> S:
    """Return the settings that the command line, and `--conf-file` below it, ask for.

    Raises:
        SettingsError: for an unknown option or key, a missing or a bad value; names it.
    """
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    parser = _Parser(description=kind.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, item in fields.items():
        flag = "--" + name.replace("_", "-")
        text = item.metadata["help"] + _default_text(item)
        if hints[name] is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=text)
        else:
            choices = item.metadata["choices"]
            parser.add_argument(
                flag,
                dest=name,
                metavar=item.metadata["metavar"] or "|".join(choices),
                help=text,
            )
    parser.add_argument(
        "--conf-file", metavar="TOML", help="the same options as keys of a TOML file"
    )
    given = vars(parser.parse_args(argv))
    conf_file = given.pop("conf_file")
    values: dict[str, Any] = _read_conf_file(conf_file, fields) if conf_file else {}
    values.update({name: value for name, value in given.items() if value is not None})
    missing = [
        "--" + name.replace("_", "-")
        for name, item in fields.items()
        if name not in values and item.default is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(f"missing: {', '.join(missing)} (see --help)")
    return kind(
        **{name: _converted(fields[name], hints[name], value) for name, value in values.items()}
    )


def _default_text(item: dataclasses.Field[Any]) -> str:
    if item.default is dataclasses.MISSING:
        return " (required)"
    return "" if item.default in (None, False) else f" (default {item.default})"


def _read_conf_file(path: str, fields: dict[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--conf-file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--conf-file {path} is not TOML: {error}") from error
    values = {key.replace("-", "_"): value for key, value in found.items()}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in fields)
        raise SettingsError(f"--conf-file {path}: unknown key {unknown[0]!r}; known are {known}")
    return values


def _converted(item: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    flag = "--" + item.name.replace("_", "-")
    kind = next(part for part in (typing.get_args(hint) or (hint,)) if part is not types.NoneType)
    choices = item.metadata["choices"]
    wanted = item.metadata["wanted"] or (", ".join(choices) if choices else kind.__name__)
    problem = SettingsError(f"{flag}: wanted {wanted}; got {value!r}")
    if kind in (str, bool):
        if not isinstance(value, kind):
            raise problem
        converted = value
    else:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise problem
        try:
            converted = kind(value)
        except ValueError:
            raise problem from None
        if not isinstance(value, str) and converted != value:
            raise problem
    check = item.metadata["check"]
    if (choices and converted not in choices) or (check and not check(converted)):
        raise problem
    return converted
