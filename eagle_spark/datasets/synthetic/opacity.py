"""What is inside the lungs: vessels, and the opacities of disease."""

from __future__ import annotations

from typing import Literal

import numpy as np

from eagle_spark.datasets.synthetic.anatomy import SIDES, Anatomy, Points, Shape, ellipse, ribbon
from eagle_spark.datasets.synthetic.projection import IMAGE_SIDE, Layer, View, noise

ALONG = np.linspace(0.0, 1.0, 10)

Disease = Literal["ground glass", "interstitial"]


def opacity(
    anatomy: Anatomy,
    view: View,
    disease: Disease | None,
    severity: float,
    texture: np.random.Generator,
) -> Layer:
    """Return the share of the air that disease has taken, 0-1.

    Args:
        disease: "ground glass" is hazy, at the rim and low; "interstitial" is streaky and net-like,
            densest round the hila; None leaves the lungs clear.
        severity: 1 is usual.
        texture: the patient's own stream, so that a second film shows the same opacities.
    """
    if disease is None:
        return np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    if disease == "ground glass":
        haze = _patches(anatomy, view, -1, texture) + _patches(anatomy, view, 1, texture)
        mottle = 1.0 + 0.22 * noise(texture, 14) + 0.14 * noise(texture, 45)
        return _share(severity, haze * mottle)
    near = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for side in SIDES:
        near += texture.uniform(0.22, 0.42) * view.bell(_hilum(anatomy, side), 0.14, 0.21)
    streaks = view.paint(_streaks(anatomy, texture), 1.5)
    net = np.maximum(noise(texture, 38) + 0.8 * noise(texture, 70) + 0.3, 0.0)
    load = near + 0.55 * streaks + 0.085 * net * (0.25 + 2.0 * near)
    return _share(severity * texture.uniform(0.8, 1.15), load)


def _share(severity: float, load: Layer) -> Layer:
    # No opacity takes all of the air: vessels and ribs shine through a little.
    share: Layer = np.clip(severity * load, 0.0, 0.92)
    return share


def _patches(anatomy: Anatomy, view: View, side: int, texture: np.random.Generator) -> Layer:
    """Return hazy patches of one lung: at the rim and low, as in COVID-19."""
    layer = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for _ in range(int(texture.integers(2, 5))):
        y = anatomy.apex + (anatomy.base - anatomy.apex) * texture.uniform(0.45, 0.86)
        rim = float(anatomy.lateral(np.array([y]))[0])
        x = side * (anatomy.medial + (rim - anatomy.medial) * texture.uniform(0.62, 0.95))
        width, height = texture.uniform(0.045, 0.085), texture.uniform(0.06, 0.12)
        layer += texture.uniform(0.40, 0.65) * view.bell((x, y), width, height)
    return np.negative(np.expm1(-layer))


def vessel_shapes(anatomy: Anatomy, texture: np.random.Generator) -> list[Shape]:
    """Return the lungs' vessels, fanning out from the hila and getting thinner."""
    shapes: list[Shape] = []
    for side in SIDES:
        root = _hilum(anatomy, side)
        shapes.append((ellipse(root, 0.022, 0.050, -0.35 * side), 0.75))
        for angle in np.linspace(-1.25, 1.45, 15) + texture.normal(0.0, 0.08, 15):
            reach = texture.uniform(0.5, 0.85) * (anatomy.half_width - anatomy.medial)
            reach *= 1.0 + 0.5 * abs(np.sin(angle))
            line = _twig(root, angle, reach, side, texture)
            shapes.append((ribbon(line, np.linspace(0.0055, 0.0008, len(line))), 0.8))
    return shapes


def _streaks(anatomy: Anatomy, texture: np.random.Generator) -> list[Shape]:
    """Return thickened interstitium: short strokes round both hila and out into the lungs."""
    shapes: list[Shape] = []
    for side in SIDES:
        root = np.array(_hilum(anatomy, side))
        for _ in range(int(texture.integers(45, 75))):
            angle = texture.uniform(-1.4, 1.5)
            reach = abs(texture.normal(0.0, 0.16))
            away = np.array([side * np.cos(angle) * reach, 1.4 * np.sin(angle) * reach])
            start = root + away
            length = texture.uniform(0.02, 0.07)
            heading = angle + texture.normal(0.0, 0.4)
            line = _twig((start[0], start[1]), heading, length, side, texture)
            width = texture.uniform(0.0015, 0.0040)
            shapes.append((ribbon(line, width), float(texture.uniform(0.4, 0.9))))
    return shapes


def _twig(
    start: tuple[float, float],
    angle: float,
    length: float,
    side: int,
    texture: np.random.Generator,
) -> Points:
    heading = angle + texture.normal(0.0, 0.3) * ALONG
    step = length / len(ALONG)
    x = start[0] + side * step * np.cumsum(np.cos(heading))
    y = start[1] + step * np.cumsum(np.sin(heading))
    return np.stack([x, y], axis=1)


def _hilum(anatomy: Anatomy, side: int) -> tuple[float, float]:
    """Return where the vessels enter a lung; the patient's left one stands a little higher."""
    lift = 0.02 if side > 0 else 0.0
    y = anatomy.apex + 0.44 * (anatomy.base - anatomy.apex) - lift
    return side * (anatomy.medial + 0.035), y
