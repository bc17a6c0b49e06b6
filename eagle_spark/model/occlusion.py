"""Occlusion: predictions on images with parts removed, to detect shortcuts.

A removed part is replaced by its mean grey, so it shows no detail. A model whose class depends on
pixels outside the lungs, on markers, borders or acquisition, has learned a shortcut (DeGrave et
al., AI for radiographic COVID-19 detection selects shortcuts over signal, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.engines import ModelOutputs

AS_IS = "as_is"
# The outline of removed lungs still shows their shape; that of removed boxes does not.
IMAGE_VARIANTS = (AS_IS, "lungs_only", "without_lungs", "without_lung_boxes")
PATCHES_PER_SIDE = 7  # without overlap; they move by half of their side
MASK_MARGIN = 0.03  # of the side: masks may miss that much of the lungs
BATCH_IMAGES = 64
_MIN_PROBABILITY = 1e-7

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probabilities = NDArray[np.float32]
Patch = tuple[slice, slice]
Predict = Callable[[Pixels], ModelOutputs]  # of images `(n, size, size)`


@dataclass(frozen=True)
class Attribution:
    """Dependence of a prediction on the parts of its image.

    Attributes:
        importance: float32 `(size, size)`, at least 0: decrease in the log-odds of the predicted
            class when a patch around the pixel is removed; mean over the patches of the pixel.
        inside: share of the importance that lies in the lungs; NaN where all is 0.
        area: share of the image that the lungs cover.
    """

    importance: NDArray[np.float32]
    inside: float
    area: float


def predict_occluded(
    predict: Predict, pixels: Pixels, lungs: Mask, probabilities: Probabilities
) -> dict[str, Probabilities]:
    """Return the probabilities of an image `(size, size)` and of its occluded variants.

    Args:
        lungs: mask of the same shape, already dilated.
        probabilities: `(classes,)`, of the whole image.

    Returns:
        Variant, one of `IMAGE_VARIANTS` -> probabilities `(classes,)`.
    """
    occluded = predict(np.stack(blank_regions(pixels, lungs))).label
    return dict(zip(IMAGE_VARIANTS, (probabilities, *occluded), strict=True))


def compute_attribution(
    predict: Predict, pixels: Pixels, lungs: Mask, probabilities: Probabilities
) -> Attribution:
    """Compute the importance of each pixel of an image `(size, size)` by occlusion.

    Occlusion (Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014)
    removes one patch at a time. Unlike Grad-CAM it includes the features that every layer feeds
    into the class head, and it runs on the engine that scores.

    Args:
        lungs: mask of the same shape, already dilated.
        probabilities: `(classes,)`, of the whole image.
    """
    label = int(probabilities.argmax())
    patches = list(iter_patches(len(pixels)))
    decrease = _compute_log_odds(probabilities[label]) - np.concatenate(
        [
            _compute_log_odds(_predict_without_patches(predict, pixels, batch)[:, label])
            for batch in _batch_patches(patches)
        ]
    )
    importance, covered = np.zeros((2, *pixels.shape), np.float32)
    for (rows, columns), drop in zip(patches, np.maximum(decrease, 0), strict=True):
        importance[rows, columns] += drop
        covered[rows, columns] += 1
    importance /= covered
    total = float(importance.sum())
    return Attribution(
        importance,
        float(importance[lungs].sum()) / total if total else float("nan"),
        float(lungs.mean()),
    )


def blank_regions(pixels: Pixels, lungs: Mask) -> tuple[Pixels, Pixels, Pixels]:
    """Return the image with its lungs only, without them, and without the boxes around them.

    Each half of the image has one box, around the lungs in that half.
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


def dilate_mask(mask: Mask, pixels: int) -> Mask:
    """Dilate a mask by this many pixels, in steps of four neighbours."""
    from scipy.ndimage import binary_dilation

    dilated: Mask = binary_dilation(mask, iterations=pixels) if pixels else mask
    return dilated


def iter_patches(size: int) -> Iterator[Patch]:
    """Yield squares that cover an image; each overlaps the next one by half."""
    side = -(-size // PATCHES_PER_SIDE)
    firsts = [min(first, size - side) for first in range(0, size - side // 2, max(1, side // 2))]
    for top in dict.fromkeys(firsts):
        for left in dict.fromkeys(firsts):
            yield slice(top, top + side), slice(left, left + side)


def _batch_patches(patches: list[Patch]) -> Iterator[list[Patch]]:
    return (patches[first : first + BATCH_IMAGES] for first in range(0, len(patches), BATCH_IMAGES))


def _predict_without_patches(
    predict: Predict, pixels: Pixels, patches: list[Patch]
) -> NDArray[np.float32]:
    """Return the probabilities `(patches, classes)` of the image without each patch."""
    images = np.repeat(pixels[np.newaxis], len(patches), axis=0)
    for image, patch in zip(images, patches, strict=True):
        image[patch] = round(float(pixels[patch].mean()))
    return predict(images).label


def _compute_log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = np.clip(probabilities.astype(np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.log(clipped / (1 - clipped))
