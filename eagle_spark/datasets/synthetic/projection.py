"""Projection of the anatomy onto the detector: pose, painted outlines, blur and smooth noise.

A layer is a float32 array (299, 299), row-major, 0-1 unless documented otherwise.
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
    """Pose of the patient in front of the detector.

    Attributes:
        angle: rotation in radians.
        scale: magnification.
        shift: offset (x, y) in units of the image's side.
    """

    angle: float
    scale: float
    shift: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> View:
        """Return a random pose close to upright."""
        shift = (float(rng.normal(0.0, 0.012)), float(rng.normal(0.0, 0.015)))
        return cls(float(rng.normal(0.0, 0.022)), float(rng.uniform(0.96, 1.06)), shift)

    def project(self, points: Points) -> Points:
        """Return anatomical `points` in units of the image's side, origin at the upper left."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        projected: Points = (
            self.scale * ((points - [0.0, 0.5]) @ rotation) + 0.5 + np.array(self.shift)
        )
        return projected

    def paint(self, shapes: Iterable[Shape], blur: float) -> Layer:
        """Return the filled outlines, each with its brightness, blurred by `blur` pixels."""
        canvas = Image.new("L", (2 * IMAGE_SIDE, 2 * IMAGE_SIDE))
        pen = ImageDraw.Draw(canvas)
        for points, value in shapes:
            corners = self.project(points) * (2 * IMAGE_SIDE)
            pen.polygon(corners.ravel().tolist(), fill=round(255 * value))
        return _blur(canvas.reduce(2), blur)

    def gaussian(self, centre: tuple[float, float], width: float, height: float) -> Layer:
        """Return a Gaussian of height 1 at an anatomical point."""
        x, y = self.project(np.array([centre]))[0]
        grid = (np.arange(IMAGE_SIDE, dtype=np.float32) + 0.5) / IMAGE_SIDE
        across = np.exp(-0.5 * ((grid - x) / (self.scale * width)) ** 2)
        down = np.exp(-0.5 * ((grid - y) / (self.scale * height)) ** 2)
        layer: Layer = (down[:, None] * across[None, :]).astype(np.float32)
        return layer


def smooth_noise(rng: np.random.Generator, cells: int) -> Layer:
    """Return smooth noise of about -2 to 2, interpolated from `cells` x `cells` normal values."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    fine = Image.fromarray(coarse).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(fine)


def blur_layer(layer: Layer, radius: float) -> Layer:
    """Return a layer of 0-1 after a Gaussian blur of `radius` pixels, computed in 8 bits."""
    return _blur(Image.fromarray((255.0 * layer).astype(np.uint8)), radius)


def _blur(image: Image.Image, radius: float) -> Layer:
    # Exact Gaussians take half of an image's time: a quarter of the size suffices for a wide one,
    # a box of the same spread for a narrow one.
    if radius >= 3.0:
        small = image.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4.0))
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    else:
        image = image.filter(ImageFilter.BoxBlur(1.3 * radius))
    return np.divide(np.asarray(image, np.float32), 255.0, dtype=np.float32)
