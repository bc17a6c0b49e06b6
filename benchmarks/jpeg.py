"""Decoders of JPEG compared with Pillow, to grey pixels of the network's size.

    python -m benchmarks.jpeg --images DIR [--count 40] [--rounds 7]

Writes `count` images of DIR as JPEG, unchanged in size and of 2000 x 2000 pixels, and decodes them
from memory with Pillow (as the package does: grey and scaled by the decoder, then a triangle
filter), with simplejpeg (libjpeg-turbo) and with OpenCV, whose scaled pixels go through the same
filter. The decoders take turns; `milliseconds` is CPU time an image, the median of the rounds,
`ratio` that of Pillow divided by it within a round, and `equal` the number of images with Pillow's
pixels. simplejpeg and OpenCV are installed into `build/rivals` on first use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.score import LARGE_SIDE, prepare_rivals
from eagle_spark.imaging.decode import decode_image
from tests.helpers.processes import ROOT, link_images

SIZE = 224
Pixels = NDArray[np.uint8]


def encode(path: Path, side: int | None) -> bytes:
    """Return an image as JPEG, grey, of `side` x `side` pixels or its size."""
    with Image.open(path) as image:
        grey = image.convert("L")
    if side:
        grey = grey.resize((side, side), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    grey.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def shrink(pixels: Pixels) -> Pixels:
    square = Image.fromarray(pixels).resize(
        (SIZE, SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(square)


def with_pillow(data: bytes) -> Pixels:
    return decode_image(data, SIZE).pixels


def with_simplejpeg(data: bytes) -> Pixels:
    import simplejpeg

    # Of the sizes that libjpeg scales to, Pillow takes the smallest one of at least SIZE.
    pixels = simplejpeg.decode_jpeg(data, "GRAY", min_height=SIZE, min_width=SIZE)
    return shrink(pixels[..., 0])


def with_opencv(data: bytes) -> Pixels:
    import cv2

    height, width = Image.open(BytesIO(data)).size
    scale = min(8, min(height, width) // SIZE)
    flag = next(
        (getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{n}") for n in (8, 4, 2) if scale >= n),
        cv2.IMREAD_GRAYSCALE,
    )
    return shrink(cv2.imdecode(np.frombuffer(data, np.uint8), flag))


DECODERS: dict[str, Callable[[bytes], Pixels]] = {
    "pillow": with_pillow,
    "simplejpeg": with_simplejpeg,
    "opencv": with_opencv,
}


def compare(images: list[bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of each decoder."""
    seconds: dict[str, list[float]] = {name: [] for name in DECODERS}
    for _ in range(rounds):
        for name, decode in DECODERS.items():
            start = time.process_time()
            for data in images:
                decode(data)
            seconds[name].append(time.process_time() - start)
    expected = [with_pillow(data) for data in images]
    return {
        name: {
            "milliseconds": round(statistics.median(seconds[name]) / len(images) * 1000, 2),
            "ratio": round(
                statistics.median(
                    pillow / other
                    for pillow, other in zip(seconds["pillow"], seconds[name], strict=True)
                ),
                2,
            ),
            "equal": sum(
                np.array_equal(decode(data), pixels)
                for data, pixels in zip(images, expected, strict=True)
            ),
        }
        for name, decode in DECODERS.items()
    }


def main() -> None:
    if find_spec("simplejpeg") is None:
        words = [prepare_rivals(), "-m", "benchmarks.jpeg", *sys.argv[1:]]
        raise SystemExit(subprocess.run(words, cwd=ROOT).returncode)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        paths = sorted(link_images(options.images, options.count, Path(name, "images")).iterdir())
        figures = {
            kind: compare([encode(path, side) for path in paths], options.rounds)
            for kind, side in (("small", None), ("large", LARGE_SIDE))
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
