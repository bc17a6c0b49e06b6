"""`eagle-resize --input DIR --out DIR`: a folder of images again in one size."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eagle_spark.datasets.layout import is_masks
from eagle_spark.errors import ImageRejected, InputError, OutputError
from eagle_spark.imaging.decode import MAX_FILE_BYTES, open_frame, read_radiograph
from eagle_spark.imaging.mask import read_mask
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from eagle_spark.io import LocalStorage, list_folder, printable, read_image, split_uri
from eagle_spark.job import main as run_job
from eagle_spark.progress import Progress
from eagle_spark.settings import ResizeSettings

WORKBOOK = ".xlsx"
JPEG_QUALITY = 95
BATCH = 16  # files that a process is handed at once
_FORMATS = {"png": "PNG", "jpeg": "JPEG", "bmp": "BMP", "tiff": "TIFF"}
ACTIONS = ("resized", "copied", "kept", "rejected")


@dataclass(frozen=True)
class Done:
    """One file, and which of `ACTIONS` it met."""

    name: str
    action: str
    rejected: ImageRejected | None = None


def resize(settings: ResizeSettings) -> dict[str, Any]:
    """Write every image below `input` as grey `size` x `size` under the same name below `out`.

    Images in a folder called `masks` are resized by nearest neighbour, others as `preprocess` does
    it. What is of that size is copied byte for byte, as are workbooks; what an earlier run wrote
    from the same file stays.

    Returns:
        `listed, resized, copied, kept, rejected, by_reason, seconds`.

    Raises:
        InputError: when there is no such folder.
        OutputError: when `out` is the input or lies in it, or cannot be written.
    """
    started = time.perf_counter()
    source, target = (Path(_local(uri)) for uri in (settings.input, settings.out))
    if target == source or source in target.parents:
        raise OutputError(f"--out {settings.out}: must not lie in --input {settings.input}")
    names = [
        os.path.relpath(entry.uri.removeprefix(LocalStorage.prefix), source)
        for entry in list_folder(settings.input)
    ]
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    work = partial(resize_file, source, target, settings.size)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with (
            Progress("resize", len(names)) as progress,
            # Forked children would share locks that threads of this process hold.
            ProcessPoolExecutor(_cores(), mp_context=get_context("spawn")) as pool,
        ):
            for done in pool.map(work, sorted(names), chunksize=BATCH):
                counts[done.action] += 1
                if done.rejected:
                    reasons[str(done.rejected.reason)] += 1
                    print(f"{printable(done.name)}: {done.rejected}", file=sys.stderr)
                progress.update(counts.total())
    except OSError as error:
        raise OutputError(f"--out {settings.out} cannot be written: {error}") from error
    return {
        "listed": len(names),
        **{action: counts[action] for action in ACTIONS},
        "by_reason": dict(reasons),
        "seconds": round(time.perf_counter() - started, 1),
    }


def resize_file(source: Path, target: Path, size: int, name: str) -> Done:
    """Do one file; `name` is its path below `source`.

    Raises:
        OSError: when the target cannot be written.
    """
    try:
        data = read_image(str(source / name), MAX_FILE_BYTES)
        changed = (source / name).stat().st_mtime_ns
        if sniff(data[:HEAD_BYTES]) is None and name.lower().endswith(WORKBOOK):
            return _write(target / name, data, changed, Done(name, "copied"))
        wanted = target / _name_of(name, data)
        if _is_right(wanted, changed, size):
            return Done(name, "kept")
        if _has_size(data, size):
            return _write(target / name, data, changed, Done(name, "copied"))
        small = _encoded(data, size, is_mask=any(map(is_masks, Path(name).parts[:-1])))
    except ImageRejected as rejected:
        return Done(name, "rejected", rejected)
    return _write(wanted, small, changed, Done(name, "resized"))


def _encoded(data: bytes, size: int, *, is_mask: bool) -> bytes:
    """Return the resized image in the format it came in, or as PNG where it cannot be written."""
    pixels = (
        read_mask(data, size).astype(np.uint8) * 255
        if is_mask
        else read_radiograph(data, size).pixels
    )
    stream = BytesIO()
    format = _FORMATS.get(sniff(data[:HEAD_BYTES]) or "", "PNG")
    Image.fromarray(pixels).save(stream, format, quality=JPEG_QUALITY)
    return stream.getvalue()


def _name_of(name: str, data: bytes) -> str:
    return name if sniff(data[:HEAD_BYTES]) in (*_FORMATS, None) else f"{name}.png"


def _has_size(data: bytes, size: int) -> bool:
    """Whether an image is whole and of that size; those that Pillow cannot write are not."""
    if sniff(data[:HEAD_BYTES]) not in _FORMATS:
        return False
    with open_frame(data) as image:
        if image.size != (size, size):
            return False
        image.load()
        return True


def _is_right(path: Path, changed: int, size: int) -> bool:
    """Whether an earlier run wrote this file, in this size, from the source as it is now."""
    try:
        return path.stat().st_mtime_ns == changed and _has_size(path.read_bytes(), size)
    except (OSError, ImageRejected):
        return False


def _write(path: Path, data: bytes, changed: int, done: Done) -> Done:
    LocalStorage().write(str(path), data)
    os.utime(path, ns=(changed, changed))
    return done


def _local(uri: str) -> str:
    scheme, _, path = split_uri(uri)
    if scheme != "file":
        raise InputError(f"{uri}: a folder of this machine is wanted")
    return os.path.realpath(path)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eagle-resize` in the frame of the jobs."""
    return run_job(ResizeSettings, resize, argv)


if __name__ == "__main__":
    raise SystemExit(main())
