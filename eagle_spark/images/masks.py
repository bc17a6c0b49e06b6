"""Masks: True inside the lungs. Never interpolated, never grey."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.images.decode import load_grey, open_frame, upright
from eagle_spark.images.png import write_bits

GAP = 0.125
"""Share of the range of grey values: groups that are further apart are different labels."""
MAX_LABELS = 16
"""Grey values of a mask that neither smooth edges nor JPEG have changed."""
MAX_STRAY = 0.1
"""Part of the set pixels that an area of neither background nor lung may have."""


def read_mask(data: bytes, size: int) -> NDArray[np.bool_]:
    """Decode a mask of any size to `(size, size)` by nearest neighbour.

    It is turned, and made grey, as an image of the same bytes is. Where the grey values form
    groups, the lowest is the background and all others are lung: 0/255, 0/1, 1 bit, palettes and a
    label for each lung mean the same. Where smooth edges or JPEG fill the gaps between the groups,
    a pixel is set from half of the largest value on.

    Raises:
        ImageRejected: MASK_INVALID when it cannot be read, or an area of neither black nor white
            is not set by this rule; the detail names why. MASK_EMPTY when no pixel is set.
    """
    try:
        with open_frame(data) as image:
            values = np.asarray(load_grey(image, []))
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ImageRejected(Reason.CORRUPT, "pixels that are not finite numbers")
            lungs = Image.fromarray(_lungs(values))
            small = upright(lungs.resize((size, size), Image.Resampling.NEAREST), image)
    except ImageRejected as inner:
        raise ImageRejected(Reason.MASK_INVALID, str(inner)) from inner
    mask: NDArray[np.bool_] = np.asarray(small)
    if not mask.any():
        raise ImageRejected(Reason.MASK_EMPTY, f"no pixel set at {size}x{size}")
    return mask


def _lungs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the grey values `(height, width)` are lung."""
    levels, counts = np.unique(values, return_counts=True)
    levels = levels.astype(np.float64)
    if len(levels) == 1:
        return np.full(values.shape, levels[0] > 0)
    least, most = levels[0], levels[-1]
    gaps = np.flatnonzero(np.diff(levels) > GAP * (most - least))
    threshold = levels[gaps[0] + 1] if len(gaps) else max(most / 2, levels[1])
    if len(gaps) and len(levels) <= MAX_LABELS:
        strays = counts[(levels > least) & (levels < threshold)]
    else:
        # Edges and compression give few pixels of each grey; an area lies within a few levels.
        inner = (levels > least + GAP * (most - least)) & (levels < threshold)
        places = np.rint((levels[inner] - least) / (most - least) * 255).astype(int)
        strays = np.convolve(np.bincount(places, counts[inner], 256), np.ones(5))
    set_pixels = counts[levels >= threshold].sum()
    if strays.max(initial=0) > MAX_STRAY * set_pixels:
        raise ImageRejected(
            Reason.CORRUPT,
            f"an area is neither background ({least:g}) nor lung (from {threshold:g} on);"
            " wanted one grey value for each",
        )
    lungs: NDArray[np.bool_] = values >= threshold
    return lungs


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return `mask` (height, width) as a 1-bit PNG; equal masks give equal bytes."""
    return write_bits(mask)


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask that `encode_mask` wrote, at its own size.

    Raises:
        ValueError: when `data` is a PNG of another kind.
    """
    with PngImageFile(BytesIO(data)) as image:
        if image.mode != "1":
            raise ValueError(f"a mask is a 1-bit PNG; got mode {image.mode}")
        return np.asarray(image)
