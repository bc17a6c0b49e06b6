"""From the body to the detector: a pose, painted outlines, blur and smooth noise.

A layer is a float32 array `(299, 299)`, row-major, 0-1 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from eagle_spark.datasets.synthetic.anatomy import Points, Shape

IMAGE_SIDE = 299

Layer = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """How the patient stands before the detector: turned, scaled, shifted."""

    angle: float
    scale: float
    shift: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> View:
        """Return a slightly different pose for every film."""
        shift = (float(rng.normal(0.0, 0.012)), float(rng.normal(0.0, 0.015)))
        return cls(float(rng.normal(0.0, 0.022)), float(rng.uniform(0.96, 1.06)), shift)

    def place(self, points: Points) -> Points:
        """Return anatomical `points` in units of the image's side, origin at the upper left."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        placed: Points = self.scale * ((points - [0.0, 0.5]) @ turn) + 0.5 + np.array(self.shift)
        return placed

    def paint(self, shapes: Iterable[Shape], blur: float) -> Layer:
        """Return filled outlines, each with its value of 0-1, blurred by `blur` pixels."""
        canvas = Image.new("L", (2 * IMAGE_SIDE, 2 * IMAGE_SIDE))
        pen = ImageDraw.Draw(canvas)
        for points, value in shapes:
            corners = self.place(points) * (2 * IMAGE_SIDE)
            pen.polygon(corners.ravel().tolist(), fill=round(255 * value))
        return _blurred(canvas.reduce(2), blur)

    def bell(self, centre: tuple[float, float], width: float, height: float) -> Layer:
        """Return a Gaussian bell of height 1 at an anatomical point."""
        x, y = self.place(np.array([centre]))[0]
        grid = (np.arange(IMAGE_SIDE, dtype=np.float32) + 0.5) / IMAGE_SIDE
        across = np.exp(-0.5 * ((grid - x) / (self.scale * width)) ** 2)
        down = np.exp(-0.5 * ((grid - y) / (self.scale * height)) ** 2)
        layer: Layer = (down[:, None] * across[None, :]).astype(np.float32)
        return layer


def noise(rng: np.random.Generator, cells: int) -> Layer:
    """Return smooth noise, about -2 to 2, `cells` bumps across the image."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    film = Image.fromarray(coarse).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(film)


def soften(layer: Layer, radius: float) -> Layer:
    """Return a layer of 0-1 blurred by a Gaussian of `radius` pixels (in 8 bits)."""
    return _blurred(Image.fromarray((255.0 * layer).astype(np.uint8)), radius)


def _blurred(image: Image.Image, radius: float) -> Layer:
    # Exact Gaussians cost half of a film's time: a wide one is as good at a quarter of the size,
    # a narrow one as a box of the same spread.
    if radius >= 3.0:
        small = image.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4.0))
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    else:
        image = image.filter(ImageFilter.BoxBlur(1.3 * radius))
    return np.divide(np.asarray(image, np.float32), 255.0, dtype=np.float32)
