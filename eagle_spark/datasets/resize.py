"""`eagle resize --input DIR --out DIR`: resize a folder of images to one size."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from eagle_spark.datasets.layout import is_mask_folder
from eagle_spark.errors import ImageRejectedError, InputError, OutputError
from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image, open_frame
from eagle_spark.imaging.mask import read_mask
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from eagle_spark.io import LocalStorage, list_folder, read_bytes, split_uri, to_utf8
from eagle_spark.progress import Progress
from eagle_spark.settings import ResizeSettings

WORKBOOK_EXTENSION = ".xlsx"
JPEG_QUALITY = 95
FILES_PER_TASK = 16
_FORMATS = {"png": "PNG", "jpeg": "JPEG", "bmp": "BMP", "tiff": "TIFF"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileResult:
    """Result of one file.

    Attributes:
        name: path below the input folder.
        action: "resized", "copied", "kept" (written by an earlier run) or "rejected".
        error: the error of a rejected file.
    """

    name: str
    action: str
    error: ImageRejectedError | None = None


@dataclass(frozen=True)
class ResizeResult:
    """Number of files by action, and of rejected files by reason.

    `listed == resized + copied + kept + rejected`.

    Attributes:
        listed: number of files.
        resized: files written at the wanted size.
        copied: files of the wanted size and workbooks, copied byte for byte.
        kept: files that an earlier run wrote from the same file.
        rejected: number of rejected files.
        by_reason: `Reason` -> number of rejected files.
        seconds: wall time.
    """

    listed: int
    resized: int
    copied: int
    kept: int
    rejected: int
    by_reason: Mapping[str, int]
    seconds: float


def resize(settings: ResizeSettings) -> ResizeResult:
    """Write every image below `input` as grey `size` x `size` under the same name below `out`.

    Images in a folder called `masks` are resized by nearest neighbour, others as in `preprocess`.
    Images of that size and workbooks are copied byte for byte; files that an earlier run wrote from
    the same input file are kept.

    Raises:
        InputError: when the input folder does not exist.
        OutputError: when `out` is the input folder or in it, or cannot be written.
    """
    started = time.perf_counter()
    source, target = (Path(_resolve_local(uri)) for uri in (settings.input, settings.out))
    if target == source or source in target.parents:
        raise OutputError(f"`out` {settings.out}: must not lie in `input` {settings.input}")
    names = [
        os.path.relpath(entry.uri.removeprefix(LocalStorage.prefix), source)
        for entry in list_folder(settings.input)
    ]
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    resize_one = partial(resize_file, source, target, settings.size)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (
            Progress("resize", len(names)) as progress,
            # Forked children would share locks that threads of this process hold.
            ProcessPoolExecutor(_count_cores(), mp_context=get_context("spawn")) as pool,
        ):
            for result in pool.map(resize_one, sorted(names), chunksize=FILES_PER_TASK):
                counts[result.action] += 1
                if result.error:
                    reasons[str(result.error.reason)] += 1
                    _log.warning("%s: %s", to_utf8(result.name), result.error)
                progress.update(counts.total())
    except OSError as error:
        raise OutputError(f"`out` {settings.out} cannot be written: {error}") from error
    return ResizeResult(
        listed=len(names),
        resized=counts["resized"],
        copied=counts["copied"],
        kept=counts["kept"],
        rejected=counts["rejected"],
        by_reason=dict(reasons),
        seconds=round(time.perf_counter() - started, 1),
    )


def resize_file(source: Path, target: Path, size: int, name: str) -> FileResult:
    """Resize or copy one file.

    Args:
        source: input folder.
        target: output folder.
        size: side of the resized image in pixels.
        name: path of the file below `source`.

    Raises:
        OSError: when the output file cannot be written.
    """
    try:
        data = read_bytes(str(source / name), MAX_FILE_BYTES)
        modified = (source / name).stat().st_mtime_ns
        if sniff(data[:HEAD_BYTES]) is None and name.lower().endswith(WORKBOOK_EXTENSION):
            _write(target / name, data, modified)
            return FileResult(name, "copied")
        output = target / _output_name(name, data)
        if _is_up_to_date(output, modified, size):
            return FileResult(name, "kept")
        if _has_size(data, size):
            _write(target / name, data, modified)
            return FileResult(name, "copied")
        is_mask = any(map(is_mask_folder, Path(name).parts[:-1]))
        resized = _encode_resized(data, size, is_mask=is_mask)
    except ImageRejectedError as error:
        return FileResult(name, "rejected", error)
    _write(output, resized, modified)
    return FileResult(name, "resized")


def _encode_resized(data: bytes, size: int, *, is_mask: bool) -> bytes:
    """Return the resized image in its format, or as PNG if Pillow cannot write that format."""
    pixels = (
        read_mask(data, size).astype(np.uint8) * 255 if is_mask else decode_image(data, size).pixels
    )
    stream = BytesIO()
    format = _FORMATS.get(sniff(data[:HEAD_BYTES]) or "", "PNG")
    Image.fromarray(pixels).save(stream, format, quality=JPEG_QUALITY)
    return stream.getvalue()


def _output_name(name: str, data: bytes) -> str:
    return name if sniff(data[:HEAD_BYTES]) in (*_FORMATS, None) else f"{name}.png"


def _has_size(data: bytes, size: int) -> bool:
    """Return whether an image is intact, of that size and in a format that Pillow writes."""
    if sniff(data[:HEAD_BYTES]) not in _FORMATS:
        return False
    with open_frame(data) as image:
        if image.size != (size, size):
            return False
        image.load()
        return True


def _is_up_to_date(path: Path, modified: int, size: int) -> bool:
    """Return whether an earlier run wrote `path` in this size from the unchanged source file."""
    try:
        return path.stat().st_mtime_ns == modified and _has_size(path.read_bytes(), size)
    except (OSError, ImageRejectedError):
        return False


def _write(path: Path, data: bytes, modified: int) -> None:
    LocalStorage().write(str(path), data)
    os.utime(path, ns=(modified, modified))


def _resolve_local(uri: str) -> str:
    scheme, _, path = split_uri(uri)
    if scheme != "file":
        raise InputError(f"{uri}: wanted a folder of this machine; got {scheme}://")
    return os.path.realpath(path)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0))
