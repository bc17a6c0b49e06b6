"""Does a model look at the lungs? It is asked again with parts of the image taken away.

An image from which something was taken shows no detail there, only its mean grey. Where the class
depends on what is outside of the lungs, on markers, borders or how the picture was made, the model
has learned a shortcut (DeGrave et al., AI for radiographic COVID-19 detection selects shortcuts
over signal, 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.engines import Engine

AS_IS = "as_is"
# The outline of lungs that were taken away still tells their shape; that of a box does not.
BLANKED = (AS_IS, "lungs_only", "without_lungs", "without_lung_boxes")
PATCHES = 7  # across; they are moved by half of their side
MARGIN = 0.03  # of the side: what a mask may be short of
BATCH = 64
_TINY = 1e-7

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Shares = NDArray[np.float32]


@dataclass(frozen=True)
class Attribution:
    """What the answer to one image depends on.

    Attributes:
        importance: float32 `(size, size)`, at least 0: by how much the log-odds of the class that
            the model names sink when a patch around the pixel is taken away; mean of its patches.
        inside: share of the importance that lies in the lungs; NaN where all is 0.
        area: share of the image that the lungs cover.
    """

    importance: NDArray[np.float32]
    inside: float
    area: float


def ask_blanked(engine: Engine, pixels: Pixels, lungs: Mask, said: Shares) -> dict[str, Shares]:
    """Return what the model says of an image `(size, size)`, and of it without its parts.

    Args:
        lungs: mask of the same shape, as wide as it is to be.
        said: what the model says of the whole image, `(classes,)`.

    Returns:
        (what is blanked, one of `BLANKED`) -> probabilities `(classes,)`.
    """
    parts = engine.predict(np.stack(blanked(pixels, lungs))).label
    return dict(zip(BLANKED, (said, *parts), strict=True))


def attribute(engine: Engine, pixels: Pixels, lungs: Mask, said: Shares) -> Attribution:
    """Ask the model about one image `(size, size)` again and again, each time without a patch.

    Importance is that of occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional
    Networks, 2014): unlike Grad-CAM it sees what every layer hands to the class head, and it asks
    the very engine that scores.

    Args:
        lungs: mask of the same shape, as wide as it is to be.
        said: what the model says of the whole image, `(classes,)`.
    """
    label = int(said.argmax())
    places = list(patches(len(pixels)))
    sunk = _log_odds(said[label]) - np.concatenate(
        [_log_odds(_ask(engine, pixels, some)[:, label]) for some in _batches(places)]
    )
    importance, covered = np.zeros((2, *pixels.shape), np.float32)
    for (rows, columns), drop in zip(places, np.maximum(sunk, 0), strict=True):
        importance[rows, columns] += drop
        covered[rows, columns] += 1
    importance /= covered
    total = float(importance.sum())
    return Attribution(
        importance,
        float(importance[lungs].sum()) / total if total else float("nan"),
        float(lungs.mean()),
    )


def blanked(pixels: Pixels, lungs: Mask) -> tuple[Pixels, Pixels, Pixels]:
    """Return the image with its lungs only, without them, and without the boxes around them.

    A box is that of the lungs in one half of the image.
    """
    boxes = np.zeros_like(lungs)
    half = lungs.shape[1] // 2
    for columns in (slice(None, half), slice(half, None)):
        rows = np.flatnonzero(lungs[:, columns].any(axis=1))
        across = np.flatnonzero(lungs[:, columns].any(axis=0))
        if len(rows):
            boxes[:, columns][rows[0] : rows[-1] + 1, across[0] : across[-1] + 1] = True
    grey = np.uint8(round(float(pixels.mean())))
    return (
        np.where(lungs, pixels, grey),
        np.where(lungs, grey, pixels),
        np.where(boxes, grey, pixels),
    )


def widened(mask: Mask, pixels: int) -> Mask:
    """Return the mask with all that is within so many pixels of it, by steps of four neighbours."""
    from scipy.ndimage import binary_dilation

    wide: Mask = binary_dilation(mask, iterations=pixels) if pixels else mask
    return wide


def patches(size: int) -> Iterator[tuple[slice, slice]]:
    """Yield squares that cover an image, each with half of the next one."""
    side = -(-size // PATCHES)
    firsts = [min(first, size - side) for first in range(0, size - side // 2, max(1, side // 2))]
    for top in dict.fromkeys(firsts):
        for left in dict.fromkeys(firsts):
            yield slice(top, top + side), slice(left, left + side)


def _batches(places: list[tuple[slice, slice]]) -> Iterator[list[tuple[slice, slice]]]:
    return (places[first : first + BATCH] for first in range(0, len(places), BATCH))


def _ask(engine: Engine, pixels: Pixels, places: list[tuple[slice, slice]]) -> NDArray[np.float32]:
    asked = np.repeat(pixels[np.newaxis], len(places), axis=0)
    for image, place in zip(asked, places, strict=True):
        image[place] = round(float(pixels[place].mean()))
    return engine.predict(asked).label


def _log_odds(share: NDArray[np.float32]) -> NDArray[np.float64]:
    kept = np.clip(share.astype(np.float64), _TINY, 1 - _TINY)
    return np.log(kept / (1 - kept))
