"""Content of the lungs: vessels, and opacities of diseases."""

from __future__ import annotations

from typing import Literal

import numpy as np

from eagle_spark.datasets.synthetic.anatomy import SIDES, Anatomy, Points, Shape, ellipse, ribbon
from eagle_spark.datasets.synthetic.projection import IMAGE_SIDE, Layer, View, smooth_noise

_STEPS = np.linspace(0.0, 1.0, 10)

Disease = Literal["ground glass", "interstitial"]


def render_opacity(
    anatomy: Anatomy,
    view: View,
    disease: Disease | None,
    severity: float,
    texture: np.random.Generator,
) -> Layer:
    """Return the fraction of the air that the disease displaces, 0-1.

    Args:
        anatomy: the patient.
        view: pose of the patient.
        disease: "ground glass" is hazy, peripheral and basal; "interstitial" is streaky and
            reticular, densest around the hila; None leaves the lungs clear.
        severity: typically 1.
        texture: generator seeded per patient, so that all images of a patient have the same
            opacities.
    """
    if disease is None:
        return np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    if disease == "ground glass":
        haze = _hazy_patches(anatomy, view, -1, texture) + _hazy_patches(anatomy, view, 1, texture)
        mottle = 1.0 + 0.22 * smooth_noise(texture, 14) + 0.14 * smooth_noise(texture, 45)
        return _saturate(severity, haze * mottle)
    density = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for side in SIDES:
        density += texture.uniform(0.22, 0.42) * view.gaussian(_hilum(anatomy, side), 0.14, 0.21)
    streaks = view.paint(_interstitial_streaks(anatomy, texture), 1.5)
    net = np.maximum(smooth_noise(texture, 38) + 0.8 * smooth_noise(texture, 70) + 0.3, 0.0)
    load = density + 0.55 * streaks + 0.085 * net * (0.25 + 2.0 * density)
    return _saturate(severity * texture.uniform(0.8, 1.15), load)


def _saturate(severity: float, load: Layer) -> Layer:
    # Below 1, so that vessels and ribs stay faintly visible through every opacity.
    fraction: Layer = np.clip(severity * load, 0.0, 0.92)
    return fraction


def _hazy_patches(anatomy: Anatomy, view: View, side: int, texture: np.random.Generator) -> Layer:
    """Return hazy patches of one lung, peripheral and basal as in COVID-19."""
    layer = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.float32)
    for _ in range(int(texture.integers(2, 5))):
        y = anatomy.apex + (anatomy.base - anatomy.apex) * texture.uniform(0.45, 0.86)
        rim = float(anatomy.lateral(np.array([y]))[0])
        x = side * (anatomy.medial + (rim - anatomy.medial) * texture.uniform(0.62, 0.95))
        width, height = texture.uniform(0.045, 0.085), texture.uniform(0.06, 0.12)
        layer += texture.uniform(0.40, 0.65) * view.gaussian((x, y), width, height)
    return np.negative(np.expm1(-layer))


def vessel_shapes(anatomy: Anatomy, texture: np.random.Generator) -> list[Shape]:
    """Return the vessels of the lungs, which fan out from the hila and taper."""
    shapes: list[Shape] = []
    for side in SIDES:
        root = _hilum(anatomy, side)
        shapes.append((ellipse(root, 0.022, 0.050, -0.35 * side), 0.75))
        for angle in np.linspace(-1.25, 1.45, 15) + texture.normal(0.0, 0.08, 15):
            reach = texture.uniform(0.5, 0.85) * (anatomy.half_width - anatomy.medial)
            reach *= 1.0 + 0.5 * abs(np.sin(angle))
            line = _curved_line(root, angle, reach, side, texture)
            shapes.append((ribbon(line, np.linspace(0.0055, 0.0008, len(line))), 0.8))
    return shapes


def _interstitial_streaks(anatomy: Anatomy, texture: np.random.Generator) -> list[Shape]:
    """Return thickened interstitium: short strokes around both hila and outwards."""
    shapes: list[Shape] = []
    for side in SIDES:
        root = np.array(_hilum(anatomy, side))
        for _ in range(int(texture.integers(45, 75))):
            angle = texture.uniform(-1.4, 1.5)
            reach = abs(texture.normal(0.0, 0.16))
            offset = np.array([side * np.cos(angle) * reach, 1.4 * np.sin(angle) * reach])
            start = root + offset
            length = texture.uniform(0.02, 0.07)
            heading = angle + texture.normal(0.0, 0.4)
            line = _curved_line((start[0], start[1]), heading, length, side, texture)
            width = texture.uniform(0.0015, 0.0040)
            shapes.append((ribbon(line, width), float(texture.uniform(0.4, 0.9))))
    return shapes


def _curved_line(
    start: tuple[float, float],
    angle: float,
    length: float,
    side: int,
    texture: np.random.Generator,
) -> Points:
    heading = angle + texture.normal(0.0, 0.3) * _STEPS
    step = length / len(_STEPS)
    x = start[0] + side * step * np.cumsum(np.cos(heading))
    y = start[1] + step * np.cumsum(np.sin(heading))
    return np.stack([x, y], axis=1)


def _hilum(anatomy: Anatomy, side: int) -> tuple[float, float]:
    """Return the point where the vessels enter a lung; the patient's left one is higher."""
    lift = 0.02 if side > 0 else 0.0
    y = anatomy.apex + 0.44 * (anatomy.base - anatomy.apex) - lift
    return side * (anatomy.medial + 0.035), y
